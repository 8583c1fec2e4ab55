// AXI4 read master for stretches of beats: a command is a byte address and a number of beats, side by side in memory.
//
// Bursts have at most MAX_BURST beats and never cross 4 KB; up to OUTSTANDING of them are under way, all with one ID, so
// that their beats come in order. Beats pass straight from R to the output: who must not stall the port has reserved
// places for them. `failed` stays set after a response that is not OKAY, until reset.
module edgemoe_axi_read #(
    parameter int DATA_BITS = 128,
    parameter int ADDRESS_BITS = 64,
    parameter int COUNT_BITS = 32,
    parameter int MAX_BURST = 64,  // a power of two, 256 at most
    parameter int OUTSTANDING = 16
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic command_valid,
    output logic command_ready,
    input  logic [ADDRESS_BITS-1:0] command_address,  // of a whole beat
    input  logic [COUNT_BITS-1:0] command_beats,  // at least one

    output logic out_valid,
    input  logic out_ready,
    output logic [DATA_BITS-1:0] out_data,

    output logic idle,  // no command, and nothing under way
    output logic failed,

    output logic [ADDRESS_BITS-1:0] m_axi_ARADDR,
    output logic [7:0] m_axi_ARLEN,
    output logic [2:0] m_axi_ARSIZE,
    output logic [1:0] m_axi_ARBURST,
    output logic m_axi_ARVALID,
    input  logic m_axi_ARREADY,
    input  logic [DATA_BITS-1:0] m_axi_RDATA,
    input  logic [1:0] m_axi_RRESP,
    input  logic m_axi_RLAST,
    input  logic m_axi_RVALID,
    output logic m_axi_RREADY
);

  localparam int UNDER_WAY_BITS = $clog2(OUTSTANDING + 1);
  logic [UNDER_WAY_BITS-1:0] under_way;  // bursts that are asked for and have not come
  logic asks;
  logic burst_ends;
  logic [7:0] unused_length;
  wire unused = &{1'b0, unused_length};

  edgemoe_axi_bursts #(
      .DATA_BITS(DATA_BITS),
      .ADDRESS_BITS(ADDRESS_BITS),
      .COUNT_BITS(COUNT_BITS),
      .MAX_BURST(MAX_BURST)
  ) bursts (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .command_valid(command_valid),
      .command_ready(command_ready),
      .command_address(command_address),
      .command_beats(command_beats),
      .allowed(under_way != UNDER_WAY_BITS'(OUTSTANDING)),
      .begins(asks),
      .begins_length(unused_length),
      .address(m_axi_ARADDR),
      .length(m_axi_ARLEN),
      .valid(m_axi_ARVALID),
      .ready(m_axi_ARREADY)
  );

  assign m_axi_ARSIZE = 3'($clog2(DATA_BITS / 8));
  assign m_axi_ARBURST = 2'b01;
  assign out_valid = m_axi_RVALID;
  assign out_data = m_axi_RDATA;
  assign m_axi_RREADY = out_ready;
  assign burst_ends = m_axi_RVALID && m_axi_RREADY && m_axi_RLAST;
  assign idle = command_ready && under_way == '0;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      under_way <= '0;
      failed <= 1'b0;
    end else begin
      under_way <= under_way + UNDER_WAY_BITS'(asks) - UNDER_WAY_BITS'(burst_ends);
      if (m_axi_RVALID && m_axi_RREADY && m_axi_RRESP != 2'b00) failed <= 1'b1;
    end

`ifndef SYNTHESIS
  logic past_valid;
  initial past_valid = 1'b0;
  always_ff @(posedge ap_clk) begin
    past_valid <= ap_rst_n;
    // The memory answers what it was asked for, and keeps what it offers.
    if (ap_rst_n && m_axi_RVALID) assume (under_way > UNDER_WAY_BITS'(m_axi_ARVALID));
    if (ap_rst_n && past_valid) begin
      if ($past(m_axi_RVALID && !m_axi_RREADY)) assume (m_axi_RVALID && $stable(m_axi_RDATA) && $stable(m_axi_RLAST));
      /* verilator lint_off CMPCONST */
      assert (32'(under_way) <= OUTSTANDING);
      /* verilator lint_on CMPCONST */
      assert (under_way >= UNDER_WAY_BITS'(m_axi_ARVALID));
    end
  end
`endif
`ifdef FORMAL
  initial assume (!ap_rst_n);
`endif

endmodule
