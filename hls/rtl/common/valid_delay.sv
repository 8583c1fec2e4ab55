// A flag, CYCLES enabled cycles later, cleared by reset: what says that a pipeline's other stages hold anything.
module edgemoe_valid_delay #(
    parameter int CYCLES = 1
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic ce,
    input  logic in,
    output logic out,
    output logic any  // whether the flag is anywhere on its way
);

  if (CYCLES == 0) begin : g_wire
    wire unused = &{1'b0, ap_clk, ap_rst_n, ce};
    assign out = in;
    assign any = 1'b0;
  end else begin : g_line
    logic [CYCLES:0] line;

    assign line[0] = in;
    assign out = line[CYCLES];
    assign any = |line[CYCLES:1];

    always_ff @(posedge ap_clk)
      if (!ap_rst_n) line[CYCLES:1] <= '0;
      else if (ce) line[CYCLES:1] <= line[CYCLES-1:0];
  end

endmodule
