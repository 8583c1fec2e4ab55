// AP_SAT: a number in fewer bits, at their end where it lies beyond. 1 cycle.
module edgemoe_saturate #(
    parameter int IN_BITS  = 64,
    parameter int OUT_BITS = 16
) (
    input  logic ap_clk,
    input  logic ce,
    input  logic signed [IN_BITS-1:0] in,
    output logic signed [OUT_BITS-1:0] out
);

  // It fits if the bits that go are all copies of the sign.
  logic fits;
  assign fits = in[IN_BITS-1:OUT_BITS-1] == {(IN_BITS - OUT_BITS + 1) {in[IN_BITS-1]}};

  always_ff @(posedge ap_clk)
    if (ce) out <= fits ? in[OUT_BITS-1:0] : {in[IN_BITS-1], {(OUT_BITS - 1) {!in[IN_BITS-1]}}};

endmodule
