// Engine PIXELS: patches of all images, from memory to the operand memory, a row a patch.
//
// A word is LANES bytes in WORD_BEATS beats, and starts on a beat of its own; PIXEL_OFFSET is subtracted from each byte. The
// images' beats follow each other from `address` on.
module edgemoe_pixels
  import edgemoe_job_pkg::*;
#(
    parameter int LANES = 4,
    parameter int X_BITS = 8,
    parameter int PIXEL_OFFSET = 128,
    parameter int PORT_BITS = 64,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 8,
    parameter int MAX_BURST = 64,
    parameter int OUTSTANDING = 16,
    localparam int WORD_BEATS = (8 * LANES + PORT_BITS - 1) / PORT_BITS
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic [63:0] address,  // of the images, while a job runs

    input  logic start_valid,
    output logic start_ready,
    input  job_t start_job,
    input  logic [TOKEN_BITS-1:0] start_rows,  // of all images
    output logic done,

    output logic write_enable,
    output logic [TOKEN_BITS-1:0] write_token,
    output logic [WORD_BITS-1:0] write_word,
    output logic [LANES*X_BITS-1:0] write_data,

    output logic failed,  // a read failed since the last reset

    output logic [63:0] m_axi_ARADDR,
    output logic [7:0] m_axi_ARLEN,
    output logic [2:0] m_axi_ARSIZE,
    output logic [1:0] m_axi_ARBURST,
    output logic m_axi_ARVALID,
    input  logic m_axi_ARREADY,
    input  logic [PORT_BITS-1:0] m_axi_RDATA,
    input  logic [1:0] m_axi_RRESP,
    input  logic m_axi_RLAST,
    input  logic m_axi_RVALID,
    output logic m_axi_RREADY
);
endmodule
