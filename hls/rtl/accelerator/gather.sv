// Engine GATHER: copies the tokens of queue `index` side by side in the operand memory, a word a cycle.
//
// Word w of row i is word w of token i of the queue: read from `source_word` on, written from `destination_word` on. The
// queue's token comes QUEUE cycles after its place, its word READ cycles after that. `done` is one cycle, once the last word
// has been handed to the memory.
module edgemoe_gather
  import edgemoe_job_pkg::*;
#(
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 8,
    parameter int EXPERT_BITS = 4,
    parameter int WIDTH = 8,  // of a word
    parameter int QUEUE = 2,
    parameter int READ = 6
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic start_valid,
    output logic start_ready,
    input  job_t start_job,
    input  logic [TOKEN_BITS-1:0] start_rows,
    output logic done,

    output logic queue_enable,
    output logic [EXPERT_BITS-1:0] queue_expert,
    output logic [TOKEN_BITS-1:0] queue_place,
    input  logic [TOKEN_BITS-1:0] queue_token,

    output logic read_enable,
    output logic [TOKEN_BITS-1:0] read_token,
    output logic [WORD_BITS-1:0] read_word,
    input  logic [WIDTH-1:0] read_data,

    output logic write_enable,
    output logic [TOKEN_BITS-1:0] write_token,
    output logic [WORD_BITS-1:0] write_word,
    output logic [WIDTH-1:0] write_data
);
endmodule
