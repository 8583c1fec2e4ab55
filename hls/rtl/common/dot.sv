// Dot product of a word of operands with a word of weights: 1 + $clog2(LANES) cycles, one a cycle.
module edgemoe_dot #(
    parameter int LANES = 4,
    parameter int X_BITS = 8,
    parameter int W_BITS = 8,
    parameter int DOT_BITS = X_BITS + W_BITS + $clog2(LANES)
) (
    input  logic ap_clk,
    input  logic ce,
    input  logic [LANES*X_BITS-1:0] x,
    input  logic [LANES*W_BITS-1:0] weights,
    output logic [DOT_BITS-1:0] dots
);

  logic [LANES*(X_BITS+W_BITS)-1:0] products;

  for (genvar lane = 0; lane < LANES; lane++) begin : g_lane
    always_ff @(posedge ap_clk)
      if (ce)
        products[lane*(X_BITS+W_BITS)+:X_BITS+W_BITS] <=
            $signed(x[lane*X_BITS+:X_BITS]) * $signed(weights[lane*W_BITS+:W_BITS]);
  end

  edgemoe_adder_tree #(.TERMS(LANES), .IN_BITS(X_BITS + W_BITS), .OUT_BITS(DOT_BITS)) tree (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(products),
      .out(dots)
  );

endmodule
