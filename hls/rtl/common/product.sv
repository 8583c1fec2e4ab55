// Product of two signed numbers of any width, in pieces of 27 x 18 bits, each of which a DSP slice multiplies: CYCLES cycles,
// one product a cycle. The pieces are registered before they are added, so that no path leads through two slices. Where `b` has
// only two bits more than the pieces before its last one, these are added without a slice.
module edgemoe_product #(
    parameter int A_BITS = 27,
    parameter int B_BITS = 18,
    parameter int CYCLES = 1  // at least 1 + $clog2 of the number of pieces
) (
    input  logic ap_clk,
    input  logic ce,
    input  logic signed [A_BITS-1:0] a,
    input  logic signed [B_BITS-1:0] b,
    output logic signed [A_BITS+B_BITS-1:0] out
);

  // All pieces but the last of a number are without sign, so that a bit of the port is lost to them.
  localparam int A_PIECE = 26;
  localparam int B_PIECE = 17;
  localparam int A_PIECES = A_BITS > A_PIECE + 1 ? (A_BITS - 2) / A_PIECE + 1 : 1;
  localparam int B_ALL = B_BITS > B_PIECE + 1 ? (B_BITS - 2) / B_PIECE + 1 : 1;
  localparam bit SHORT = B_ALL > 1 && B_BITS - B_PIECE * (B_ALL - 1) == 2;
  localparam int B_PIECES = SHORT ? B_ALL - 1 : B_ALL;
  localparam int PIECES = A_PIECES * B_PIECES + (SHORT ? 1 : 0);
  localparam int OUT_BITS = A_BITS + B_BITS;
  logic [PIECES*OUT_BITS-1:0] parts;
  logic signed [OUT_BITS-1:0] sum;

  for (genvar i = 0; i < A_PIECES; i++) begin : g_a
    localparam bit A_LAST = i == A_PIECES - 1;
    localparam int A_WIDTH = A_LAST ? A_BITS - A_PIECE * i : A_PIECE + 1;
    logic signed [A_WIDTH-1:0] a_piece;
    if (A_LAST) begin : g_last
      assign a_piece = a[A_BITS-1:A_PIECE*i];
    end else begin : g_earlier
      assign a_piece = {1'b0, a[A_PIECE*i+:A_PIECE]};
    end

    for (genvar j = 0; j < B_PIECES; j++) begin : g_b
      localparam bit B_LAST = j == B_ALL - 1;
      localparam int B_WIDTH = B_LAST ? B_BITS - B_PIECE * j : B_PIECE + 1;
      logic signed [B_WIDTH-1:0] b_piece;
      logic signed [A_WIDTH+B_WIDTH-1:0] part;
      if (B_LAST) begin : g_last
        assign b_piece = b[B_BITS-1:B_PIECE*j];
      end else begin : g_earlier
        assign b_piece = {1'b0, b[B_PIECE*j+:B_PIECE]};
      end
      always_ff @(posedge ap_clk) if (ce) part <= a_piece * b_piece;
      assign parts[(i*B_PIECES+j)*OUT_BITS+:OUT_BITS] = OUT_BITS'(part) << (A_PIECE * i + B_PIECE * j);
    end
  end

  if (SHORT) begin : g_short
    logic signed [A_BITS+1:0] part;
    always_ff @(posedge ap_clk)
      if (ce) part <= (b[B_BITS-2] ? (A_BITS + 2)'(a) : '0) - (b[B_BITS-1] ? (A_BITS + 2)'(a) <<< 1 : '0);
    assign parts[(PIECES-1)*OUT_BITS+:OUT_BITS] = OUT_BITS'(part) << (B_PIECE * B_PIECES);
  end

  edgemoe_adder_tree #(.TERMS(PIECES), .IN_BITS(OUT_BITS), .OUT_BITS(OUT_BITS)) tree (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(parts),
      .out(sum)
  );
  edgemoe_delay #(.WIDTH(OUT_BITS), .CYCLES(CYCLES - 1 - $clog2(PIECES))) rest (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(sum),
      .out(out)
  );

`ifndef SYNTHESIS
  initial assert (CYCLES >= 1 + $clog2(PIECES));
`endif

endmodule
