// Engine OUTPUT: the residual stream of all images to memory, as 32-bit numbers.
//
// A word has WORD_BEATS beats, and starts on a beat of its own; what is left of its last beat is 0. Words come READ
// cycles after they are asked for. `done` is one cycle, once memory has answered the last write.
module edgemoe_output
  import edgemoe_job_pkg::*;
#(
    parameter int LANES = 4,
    parameter int RESIDUAL_BITS = 24,
    parameter int PORT_BITS = 64,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 8,
    parameter int READ = 4,
    parameter int MAX_BURST = 64,
    parameter int OUTSTANDING = 8,
    localparam int WORD_BEATS = (32 * LANES + PORT_BITS - 1) / PORT_BITS
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic [63:0] address,  // of the result, while a job runs

    input  logic start_valid,
    output logic start_ready,
    input  job_t start_job,
    input  logic [TOKEN_BITS-1:0] start_rows,  // of all images
    output logic done,

    output logic read_enable,
    output logic [TOKEN_BITS-1:0] read_token,
    output logic [WORD_BITS-1:0] read_word,
    input  logic [LANES*RESIDUAL_BITS-1:0] read_data,

    output logic failed,  // a write failed since the last reset

    output logic [63:0] m_axi_AWADDR,
    output logic [7:0] m_axi_AWLEN,
    output logic [2:0] m_axi_AWSIZE,
    output logic [1:0] m_axi_AWBURST,
    output logic m_axi_AWVALID,
    input  logic m_axi_AWREADY,
    output logic [PORT_BITS-1:0] m_axi_WDATA,
    output logic [PORT_BITS/8-1:0] m_axi_WSTRB,
    output logic m_axi_WLAST,
    output logic m_axi_WVALID,
    input  logic m_axi_WREADY,
    input  logic [1:0] m_axi_BRESP,
    input  logic m_axi_BVALID,
    output logic m_axi_BREADY
);
endmodule
