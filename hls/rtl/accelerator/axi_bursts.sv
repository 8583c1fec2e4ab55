// Cuts stretches of beats into AXI bursts: their addresses and lengths, at the latest one every second cycle.
//
// Every burst but the first of a stretch begins at a multiple of MAX_BURST beats, and none goes beyond the next one: so
// none crosses 4 KB. An address that is offered stays until it is taken.
module edgemoe_axi_bursts #(
    parameter int DATA_BITS = 128,
    parameter int ADDRESS_BITS = 64,
    parameter int COUNT_BITS = 32,
    parameter int MAX_BURST = 64  // a power of two; of at most 4 KB
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic command_valid,
    output logic command_ready,
    input  logic [ADDRESS_BITS-1:0] command_address,  // of a whole beat
    input  logic [COUNT_BITS-1:0] command_beats,  // none: nothing happens

    input  logic allowed,  // whether a further burst may begin
    output logic begins,  // a burst begins: its address is offered from the next cycle on
    output logic [7:0] begins_length,  // its beats less one

    output logic [ADDRESS_BITS-1:0] address,
    output logic [7:0] length,  // beats less one
    output logic valid,
    input  logic ready
);

  localparam int BYTE_BITS = $clog2(DATA_BITS / 8);  // of an address within a beat
  localparam int BURST_BITS = $clog2(MAX_BURST);
  localparam int BEAT_ADDRESS_BITS = ADDRESS_BITS - BYTE_BITS;
  logic [BEAT_ADDRESS_BITS-1:0] next;  // the beat after the last burst
  logic [COUNT_BITS-1:0] left;  // beats after it
  logic measured;  // the next burst's beats are known
  logic [BURST_BITS:0] beats;
  logic [BURST_BITS:0] to_boundary;

  assign to_boundary = (BURST_BITS + 1)'(MAX_BURST) - {1'b0, next[BURST_BITS-1:0]};
  assign command_ready = left == '0;
  assign begins = measured && allowed && (!valid || ready);
  assign begins_length = 8'(beats - 1'b1);

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      left <= '0;
      measured <= 1'b0;
    end else if (command_ready) begin
      left <= command_valid ? command_beats : '0;
    end else if (!measured) begin
      measured <= 1'b1;
    end else if (begins) begin
      left <= left - COUNT_BITS'(beats);
      measured <= 1'b0;
    end

  always_ff @(posedge ap_clk)
    if (command_ready) begin
      next <= command_address[ADDRESS_BITS-1:BYTE_BITS];
    end else if (!measured) begin
      beats <= left < COUNT_BITS'(to_boundary) ? left[BURST_BITS:0] : to_boundary;
    end else if (begins) begin
      next <= next + BEAT_ADDRESS_BITS'(beats);
    end

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) valid <= 1'b0;
    else if (begins) valid <= 1'b1;
    else if (ready) valid <= 1'b0;

  always_ff @(posedge ap_clk)
    if (begins) begin
      address <= {next, {BYTE_BITS{1'b0}}};
      length <= begins_length;
    end

`ifndef SYNTHESIS
  initial assert (MAX_BURST == 2 ** BURST_BITS && MAX_BURST * DATA_BITS <= 8 * 4096 && MAX_BURST <= 256);
  logic past_valid;
  initial past_valid = 1'b0;
  always_ff @(posedge ap_clk) begin
    past_valid <= ap_rst_n;
    if (ap_rst_n && command_valid && command_ready) assume (command_address[BYTE_BITS-1:0] == '0);
    if (ap_rst_n && past_valid) begin
      if ($past(valid && !ready)) assert (valid && $stable(address) && $stable(length));
      /* verilator lint_off CMPCONST */
      if (valid) assert (32'(address[11:0]) + (32'(length) + 1) * (DATA_BITS / 8) <= 4096);
      /* verilator lint_on CMPCONST */
      /* verilator lint_off CMPCONST */
      if (valid) assert (32'(length) < MAX_BURST);
      /* verilator lint_on CMPCONST */
      // For the induction.
      if (measured) assert (beats != '0 && beats <= to_boundary && COUNT_BITS'(beats) <= left);
    end
  end
`endif
`ifdef FORMAL
  initial assume (!ap_rst_n);
`endif

endmodule
