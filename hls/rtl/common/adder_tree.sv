// Sum of TERMS signed numbers, two by two: $clog2(TERMS) cycles, one sum a cycle.
module edgemoe_adder_tree #(
    parameter int TERMS = 4,
    parameter int IN_BITS = 16,
    parameter int OUT_BITS = IN_BITS + $clog2(TERMS)
) (
    input  logic ap_clk,
    input  logic ce,
    input  logic [TERMS*IN_BITS-1:0] in,
    output logic signed [OUT_BITS-1:0] out
);

  if (TERMS == 1) begin : g_leaf
    wire unused = &{1'b0, ap_clk, ce};
    assign out = OUT_BITS'($signed(in));
  end else begin : g_level
    localparam int PAIRS = TERMS / 2;
    localparam int NEXT = PAIRS + TERMS % 2;
    logic [NEXT*OUT_BITS-1:0] sums;

    for (genvar i = 0; i < PAIRS; i++) begin : g_pair
      always_ff @(posedge ap_clk)
        if (ce)
          sums[i*OUT_BITS+:OUT_BITS] <= OUT_BITS'($signed(in[2*i*IN_BITS+:IN_BITS]))
              + OUT_BITS'($signed(in[(2*i+1)*IN_BITS+:IN_BITS]));
    end
    if (TERMS % 2 == 1) begin : g_odd
      always_ff @(posedge ap_clk)
        if (ce) sums[PAIRS*OUT_BITS+:OUT_BITS] <= OUT_BITS'($signed(in[(TERMS-1)*IN_BITS+:IN_BITS]));
    end

    edgemoe_adder_tree #(
        .TERMS(NEXT),
        .IN_BITS(OUT_BITS),
        .OUT_BITS(OUT_BITS)
    ) rest (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(sums),
        .out(out)
    );
  end

endmodule
