// A value, CYCLES enabled cycles later. Not reset, so that tools may build it of shift-register LUTs.
module edgemoe_delay #(
    parameter int WIDTH  = 1,
    parameter int CYCLES = 1
) (
    input  logic ap_clk,
    input  logic ce,
    input  logic [WIDTH-1:0] in,
    output logic [WIDTH-1:0] out
);

  if (CYCLES == 0) begin : g_wire
    wire unused = &{1'b0, ap_clk, ce};
    assign out = in;
  end else begin : g_line
    logic [WIDTH-1:0] line[CYCLES];
    always_ff @(posedge ap_clk)
      if (ce) begin
        line[0] <= in;
        for (int i = 1; i < CYCLES; i++) line[i] <= line[i-1];
      end
    assign out = line[CYCLES-1];
  end

endmodule
