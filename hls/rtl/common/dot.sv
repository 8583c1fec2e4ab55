// Dot product of a word of operands with a word of weights: 2 + $clog2(LANES) cycles, one a cycle.
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

  // What comes from a memory is registered before it is multiplied.
  logic [LANES*X_BITS-1:0] x_1;
  logic [LANES*W_BITS-1:0] weights_1;
  logic [LANES*(X_BITS+W_BITS)-1:0] products;

  always_ff @(posedge ap_clk)
    if (ce) begin
      x_1 <= x;
      weights_1 <= weights;
    end

  for (genvar lane = 0; lane < LANES; lane++) begin : g_lane
    always_ff @(posedge ap_clk)
      if (ce)
        products[lane*(X_BITS+W_BITS)+:X_BITS+W_BITS] <=
            $signed(x_1[lane*X_BITS+:X_BITS]) * $signed(weights_1[lane*W_BITS+:W_BITS]);
  end

  edgemoe_adder_tree #(.TERMS(LANES), .IN_BITS(X_BITS + W_BITS), .OUT_BITS(DOT_BITS)) tree (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(products),
      .out(dots)
  );

endmodule
