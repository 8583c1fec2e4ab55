// Engine POSITIONS: the residual stream starts as the position table, the same for every image.
//
// The table's beats (those behind the header) come once a call; each of its words is written to all images, a cycle each. A word
// has WORD_BEATS beats of 32-bit numbers.
module edgemoe_positions
  import edgemoe_job_pkg::*;
#(
    parameter int LANES = 4,
    parameter int RESIDUAL_BITS = 24,
    parameter int BEAT_BITS = 64,
    parameter int WORD_BEATS = 2,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 8
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic start_valid,
    output logic start_ready,
    input  job_t start_job,
    input  logic [TOKEN_BITS-1:0] start_rows,  // of all images
    output logic done,

    input  logic beat_valid,
    output logic beat_ready,
    input  logic [BEAT_BITS-1:0] beat,

    output logic write_enable,
    output logic [TOKEN_BITS-1:0] write_token,
    output logic [WORD_BITS-1:0] write_word,
    output logic [LANES*RESIDUAL_BITS-1:0] write_data
);
endmodule
