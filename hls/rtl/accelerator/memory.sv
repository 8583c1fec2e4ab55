// A memory with a write port and a read port: what is read is there LATENCY cycles later, as long as `ce` is high.
//
// STYLE is what it is built of: "distributed" (LUTs), "block", "ultra" or what the tool thinks ("auto"), as Vivado spells
// `ram_style`. Block and ultra RAM have an output register, which LATENCY 2 and more use. A word that is read while it is
// written is the old one.
module edgemoe_memory #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 16,
    parameter int LATENCY = 2,
    /* verilator lint_off UNUSEDPARAM */
    parameter STYLE = "block",
    /* verilator lint_on UNUSEDPARAM */
    localparam int ADDRESS_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1
) (
    input  logic ap_clk,
    input  logic write_enable,
    input  logic [ADDRESS_BITS-1:0] write_address,
    input  logic [WIDTH-1:0] write_data,
    input  logic ce,
    input  logic [ADDRESS_BITS-1:0] read_address,
    output logic [WIDTH-1:0] read_data
);

  (* ram_style = STYLE *) logic [WIDTH-1:0] words[DEPTH];
  logic [WIDTH-1:0] word;

  always_ff @(posedge ap_clk) begin
    if (write_enable) words[write_address] <= write_data;
    if (ce) word <= words[read_address];
  end

  edgemoe_delay #(.WIDTH(WIDTH), .CYCLES(LATENCY - 1)) registers (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(word),
      .out(read_data)
  );

`ifndef SYNTHESIS
  initial assert (LATENCY >= 1 && DEPTH >= 1);
  // What stands in registers before the first reset may look like a write.
  logic started;
  initial started = 1'b0;
  always_ff @(posedge ap_clk) begin
    if (!write_enable) started <= 1'b1;
    /* verilator lint_off CMPCONST */
    if (started && write_enable) assert (32'(write_address) < DEPTH);
    /* verilator lint_on CMPCONST */
  end
`endif

endmodule
