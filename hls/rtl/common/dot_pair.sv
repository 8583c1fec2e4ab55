// Dot products of a word of operands with the words of weights of two outputs. Two products share a DSP slice: both
// weights travel on its 27-bit port, PACK_BITS apart. Where there is room for it, the slices of two lanes add up before their
// sums are taken apart; then the lower sum's sign is given back to the upper one. 2 + $clog2(LANES) cycles, a pair a cycle.
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

  // Of two lanes, the lower sum must stay below the upper one.
  localparam int CHAIN = LANES % 2 == 0 && X_BITS + W_BITS < PACK_BITS ? 2 : 1;
  localparam int TERMS = LANES / CHAIN;
  localparam int PORT_BITS = PACK_BITS + W_BITS + 1;
  localparam int TERM_BITS = X_BITS + W_BITS + CHAIN - 1;
  localparam int TOTAL_BITS = PORT_BITS + X_BITS + CHAIN - 1;
  logic [LANES*X_BITS-1:0] x_1;
  logic [LANES*PORT_BITS-1:0] ports;
  logic [TERMS*TERM_BITS-1:0] lower;
  logic [TERMS*TERM_BITS-1:0] upper;

  always_ff @(posedge ap_clk) if (ce) x_1 <= x;

  for (genvar lane = 0; lane < LANES; lane++) begin : g_lane
    always_ff @(posedge ap_clk)
      if (ce)
        ports[lane*PORT_BITS+:PORT_BITS] <= PORT_BITS'($signed({weights[(LANES+lane)*W_BITS+:W_BITS], {PACK_BITS{1'b0}}}))
            + PORT_BITS'($signed(weights[lane*W_BITS+:W_BITS]));
  end

  for (genvar term = 0; term < TERMS; term++) begin : g_term
    localparam int FIRST = CHAIN * term;
    localparam int LAST = FIRST + CHAIN - 1;
    logic signed [PORT_BITS+X_BITS-1:0] product;
    logic signed [TOTAL_BITS-1:0] total;
    wire unused = &{1'b0, total};

    always_ff @(posedge ap_clk)
      if (ce) product <= $signed(ports[FIRST*PORT_BITS+:PORT_BITS]) * $signed(x_1[FIRST*X_BITS+:X_BITS]);

    if (CHAIN == 2) begin : g_chain
      logic signed [PORT_BITS-1:0] port;
      logic signed [X_BITS-1:0] operand;
      always_ff @(posedge ap_clk)
        if (ce) begin
          port <= $signed(ports[LAST*PORT_BITS+:PORT_BITS]);
          operand <= $signed(x_1[LAST*X_BITS+:X_BITS]);
          total <= port * operand + TOTAL_BITS'(product);
        end
    end else begin : g_single
      assign total = product;
    end
    assign lower[term*TERM_BITS+:TERM_BITS] = TERM_BITS'($signed(total[PACK_BITS-1:0]));
    assign upper[term*TERM_BITS+:TERM_BITS] = total[PACK_BITS+:TERM_BITS] + TERM_BITS'(total[PACK_BITS-1]);
  end

  edgemoe_adder_tree #(.TERMS(TERMS), .IN_BITS(TERM_BITS), .OUT_BITS(DOT_BITS)) lower_tree (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(lower),
      .out(dots[0+:DOT_BITS])
  );
  edgemoe_adder_tree #(.TERMS(TERMS), .IN_BITS(TERM_BITS), .OUT_BITS(DOT_BITS)) upper_tree (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(upper),
      .out(dots[DOT_BITS+:DOT_BITS])
  );

endmodule
