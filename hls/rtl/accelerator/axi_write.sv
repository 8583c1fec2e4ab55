// AXI4 write master for stretches of beats: a command is a byte address and a number of beats; the beats come as a stream.
//
// Bursts as in `edgemoe_axi_bursts`; their data follow in the order of their addresses, every byte of a beat is
// written. A burst is over with its response: `idle` says that everything has been written. `failed` stays set after a
// response that is not OKAY, until reset.
module edgemoe_axi_write #(
    parameter int DATA_BITS = 128,
    parameter int ADDRESS_BITS = 64,
    parameter int COUNT_BITS = 32,
    parameter int MAX_BURST = 64,
    parameter int OUTSTANDING = 8  // a power of two
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic command_valid,
    output logic command_ready,
    input  logic [ADDRESS_BITS-1:0] command_address,
    input  logic [COUNT_BITS-1:0] command_beats,

    input  logic in_valid,
    output logic in_ready,
    input  logic [DATA_BITS-1:0] in_data,

    output logic idle,
    output logic failed,

    output logic [ADDRESS_BITS-1:0] m_axi_AWADDR,
    output logic [7:0] m_axi_AWLEN,
    output logic [2:0] m_axi_AWSIZE,
    output logic [1:0] m_axi_AWBURST,
    output logic m_axi_AWVALID,
    input  logic m_axi_AWREADY,
    output logic [DATA_BITS-1:0] m_axi_WDATA,
    output logic [DATA_BITS/8-1:0] m_axi_WSTRB,
    output logic m_axi_WLAST,
    output logic m_axi_WVALID,
    input  logic m_axi_WREADY,
    input  logic [1:0] m_axi_BRESP,
    input  logic m_axi_BVALID,
    output logic m_axi_BREADY
);

  localparam int UNDER_WAY_BITS = $clog2(OUTSTANDING + 1);
  logic [UNDER_WAY_BITS-1:0] under_way;  // bursts without a response
  logic begins;
  logic [7:0] begins_length;
  logic [7:0] length;  // of the burst whose data are next
  logic length_valid;
  logic length_taken;
  logic unused_ready;
  logic [$clog2(OUTSTANDING):0] waiting;  // bursts whose data have not left
  logic [7:0] beat;
  logic takes;
  wire unused = &{1'b0, unused_ready, waiting};

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
      .begins(begins),
      .begins_length(begins_length),
      .address(m_axi_AWADDR),
      .length(m_axi_AWLEN),
      .valid(m_axi_AWVALID),
      .ready(m_axi_AWREADY)
  );

  // Lengths of the bursts whose data have not left: never more than are under way.
  edgemoe_fifo #(.WIDTH(8), .DEPTH(OUTSTANDING)) lengths (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .in_data(begins_length),
      .in_valid(begins),
      .in_ready(unused_ready),
      .out_data(length),
      .out_valid(length_valid),
      .out_ready(length_taken),
      .count(waiting)
  );

  assign takes = in_valid && in_ready;
  assign length_taken = takes && beat == length;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) beat <= '0;
    else if (takes) beat <= length_taken ? '0 : beat + 1'b1;

  logic slice_ready;
  assign in_ready = slice_ready && length_valid;

  edgemoe_register_slice #(.WIDTH(DATA_BITS + 1)) slice (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .in_data({length_taken, in_data}),
      .in_valid(takes),
      .in_ready(slice_ready),
      .out_data({m_axi_WLAST, m_axi_WDATA}),
      .out_valid(m_axi_WVALID),
      .out_ready(m_axi_WREADY)
  );

  assign m_axi_AWSIZE = 3'($clog2(DATA_BITS / 8));
  assign m_axi_AWBURST = 2'b01;
  assign m_axi_WSTRB = '1;
  assign m_axi_BREADY = 1'b1;
  assign idle = command_ready && under_way == '0;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      under_way <= '0;
      failed <= 1'b0;
    end else begin
      under_way <= under_way + UNDER_WAY_BITS'(begins) - UNDER_WAY_BITS'(m_axi_BVALID);
      if (m_axi_BVALID && m_axi_BRESP != 2'b00) failed <= 1'b1;
    end

`ifndef SYNTHESIS
  logic past_valid;
  initial past_valid = 1'b0;
  always_ff @(posedge ap_clk) begin
    past_valid <= ap_rst_n;
    // The memory answers bursts whose data it has.
    /* verilator lint_off CMPCONST */
    if (ap_rst_n && m_axi_BVALID) assume (32'(under_way) > 32'(waiting));
    /* verilator lint_on CMPCONST */
    if (ap_rst_n && past_valid) begin
      if ($past(m_axi_WVALID && !m_axi_WREADY)) assert (m_axi_WVALID && $stable(m_axi_WDATA) && $stable(m_axi_WLAST));
      assert (!begins || unused_ready);
      /* verilator lint_off CMPCONST */
      assert (32'(under_way) >= 32'(waiting));
      /* verilator lint_on CMPCONST */
      assert (length_valid ? beat <= length : beat == '0);
      /* verilator lint_off CMPCONST */
      assert (32'(under_way) <= OUTSTANDING);
      /* verilator lint_on CMPCONST */
    end
  end
`endif
`ifdef FORMAL
  initial assume (!ap_rst_n);
`endif

endmodule
