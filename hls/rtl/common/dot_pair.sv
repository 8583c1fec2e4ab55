// Dot products of a word of operands with the words of weights of two outputs. Two products share a DSP slice: both
// weights travel on its 27-bit port, PACK_BITS apart, and the lower product's sign is given back to the upper one.
// 2 + $clog2(LANES) cycles, a pair a cycle.
module edgemoe_dot_pair #(
    parameter int LANES = 4,
    parameter int X_BITS = 8,
    parameter int W_BITS = 8,
    parameter int PACK_BITS = 18,
    parameter int DOT_BITS = X_BITS + W_BITS + $clog2(LANES)
) (
    input  logic ap_clk,
    input  logic ce,
    input  logic [LANES*X_BITS-1:0] x,
    input  logic [2*LANES*W_BITS-1:0] weights,
    output logic [2*DOT_BITS-1:0] dots
);

  localparam int PORT_BITS = PACK_BITS + W_BITS + 1;
  localparam int PRODUCT_BITS = X_BITS + W_BITS;
  logic [LANES*X_BITS-1:0] x_1;
  logic [LANES*PRODUCT_BITS-1:0] lower;
  logic [LANES*PRODUCT_BITS-1:0] upper;

  always_ff @(posedge ap_clk) if (ce) x_1 <= x;

  for (genvar lane = 0; lane < LANES; lane++) begin : g_lane
    logic signed [PORT_BITS-1:0] port;
    logic signed [PORT_BITS+X_BITS-1:0] product;
    wire unused = &{1'b0, product};

    always_ff @(posedge ap_clk)
      if (ce) begin
        port <= PORT_BITS'($signed({weights[(LANES+lane)*W_BITS+:W_BITS], {PACK_BITS{1'b0}}}))
            + PORT_BITS'($signed(weights[lane*W_BITS+:W_BITS]));
        product <= port * $signed(x_1[lane*X_BITS+:X_BITS]);
      end
    assign lower[lane*PRODUCT_BITS+:PRODUCT_BITS] = product[PRODUCT_BITS-1:0];
    assign upper[lane*PRODUCT_BITS+:PRODUCT_BITS] =
        product[PACK_BITS+:PRODUCT_BITS] + PRODUCT_BITS'(product[PACK_BITS-1]);
  end

  edgemoe_adder_tree #(.TERMS(LANES), .IN_BITS(PRODUCT_BITS), .OUT_BITS(DOT_BITS)) lower_tree (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(lower),
      .out(dots[0+:DOT_BITS])
  );
  edgemoe_adder_tree #(.TERMS(LANES), .IN_BITS(PRODUCT_BITS), .OUT_BITS(DOT_BITS)) upper_tree (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(upper),
      .out(dots[DOT_BITS+:DOT_BITS])
  );

endmodule
