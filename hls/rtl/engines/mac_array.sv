// TOKEN_TILE x OUTPUTS sums of products, LANES products of each a cycle: sum = bias + sum(x * weight).
//
// `multiplies`, `first` (of a sum) and `round_over` go with the operands. The bias is asked for by whoever knows whose it
// is, so that it comes with the products: $clog2(LANES) + 2 cycles behind `first`. When a round is over the sums stay in `done` until the
// next one is. With 8-bit weights two outputs share a multiplier (PACK_BITS not zero).
module edgemoe_mac_array #(
    parameter int TOKEN_TILE = 2,
    parameter int OUTPUTS = 8,
    parameter int LANES = 4,
    parameter int X_BITS = 8,
    parameter int W_BITS = 8,
    parameter int BIAS_BITS = 32,
    parameter int SUM_BITS = 48,
    parameter int PACK_BITS = 0
) (
    input  logic ap_clk,
    input  logic ce,
    input  logic [TOKEN_TILE*LANES*X_BITS-1:0] x,
    input  logic [OUTPUTS*LANES*W_BITS-1:0] weights,
    input  logic multiplies,
    input  logic first,
    input  logic round_over,
    input  logic [OUTPUTS*BIAS_BITS-1:0] bias,
    output logic [TOKEN_TILE*OUTPUTS*SUM_BITS-1:0] done
);

  localparam int DOT_BITS = X_BITS + W_BITS + $clog2(LANES);
  logic adds;
  logic adds_first;
  logic adds_over;

  edgemoe_delay #(.WIDTH(3), .CYCLES(2 + $clog2(LANES))) sum_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in({multiplies, first, round_over}),
      .out({adds, adds_first, adds_over})
  );

  for (genvar t = 0; t < TOKEN_TILE; t++) begin : g_token
    logic [OUTPUTS*DOT_BITS-1:0] dots;

    if (PACK_BITS != 0) begin : g_packed
      for (genvar o = 0; o < OUTPUTS; o += 2) begin : g_pair
        edgemoe_dot_pair #(
            .LANES(LANES),
            .X_BITS(X_BITS),
            .W_BITS(W_BITS),
            .PACK_BITS(PACK_BITS),
            .DOT_BITS(DOT_BITS)
        ) dot (
            .ap_clk(ap_clk),
            .ce(ce),
            .x(x[t*LANES*X_BITS+:LANES*X_BITS]),
            .weights(weights[o*LANES*W_BITS+:2*LANES*W_BITS]),
            .dots(dots[o*DOT_BITS+:2*DOT_BITS])
        );
      end
    end else begin : g_single
      for (genvar o = 0; o < OUTPUTS; o++) begin : g_output
        edgemoe_dot #(.LANES(LANES), .X_BITS(X_BITS), .W_BITS(W_BITS), .DOT_BITS(DOT_BITS)) dot (
            .ap_clk(ap_clk),
            .ce(ce),
            .x(x[t*LANES*X_BITS+:LANES*X_BITS]),
            .weights(weights[o*LANES*W_BITS+:LANES*W_BITS]),
            .dots(dots[o*DOT_BITS+:DOT_BITS])
        );
      end
    end

    for (genvar o = 0; o < OUTPUTS; o++) begin : g_sum
      logic signed [SUM_BITS-1:0] sum;
      logic signed [SUM_BITS-1:0] sum_now;
      assign sum_now = adds
          ? (adds_first ? SUM_BITS'($signed(bias[o*BIAS_BITS+:BIAS_BITS])) : sum) + SUM_BITS'($signed(dots[o*DOT_BITS+:DOT_BITS]))
          : sum;
      always_ff @(posedge ap_clk)
        if (ce) begin
          sum <= sum_now;
          if (adds_over) done[(t*OUTPUTS+o)*SUM_BITS+:SUM_BITS] <= sum_now;
        end
    end
  end

endmodule
