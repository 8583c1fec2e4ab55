// AP_RND and AP_SAT: value * 2**-shift rounded to nearest, ties upwards, plus an addend, saturated. 2 cycles.
module edgemoe_round_saturate #(
    parameter int VALUE_BITS  = 64,
    parameter int SHIFT_BITS  = 6,
    parameter int ADDEND_BITS = 1,
    parameter int OUT_BITS    = 16
) (
    input  logic ap_clk,
    input  logic ce,
    input  logic signed [VALUE_BITS-1:0] value,
    input  logic [SHIFT_BITS-1:0] shift,
    input  logic signed [ADDEND_BITS-1:0] addend,  // of the cycle after the value's
    output logic signed [OUT_BITS-1:0] out
);

  localparam int TERM_BITS = VALUE_BITS > ADDEND_BITS ? VALUE_BITS : ADDEND_BITS;
  // A value may have fewer bits than the result, whose ends it is compared with.
  localparam int SUM_BITS = (TERM_BITS > OUT_BITS ? TERM_BITS : OUT_BITS) + 2;
  localparam logic signed [OUT_BITS-1:0] MAX = {1'b0, {(OUT_BITS - 1) {1'b1}}};
  localparam logic signed [OUT_BITS-1:0] MIN = {1'b1, {(OUT_BITS - 1) {1'b0}}};

  // The last bit that is shifted out, kept behind the others, is what adding half a unit would carry.
  logic signed [VALUE_BITS:0] shifted;
  // Added to itself it is carried, so that one adder does.
  logic signed [SUM_BITS:0] total;
  logic signed [SUM_BITS-1:0] sum;
  wire unused_total = &{1'b0, total[0]};

  assign total = (SUM_BITS + 1)'(shifted) + $signed({SUM_BITS'(addend), shifted[0]});
  assign sum = total[SUM_BITS:1];

  always_ff @(posedge ap_clk)
    if (ce) begin
      shifted <= $signed({value, 1'b0}) >>> shift;
      if (sum > SUM_BITS'(MAX)) out <= MAX;
      else if (sum < SUM_BITS'(MIN)) out <= MIN;
      else out <= sum[OUT_BITS-1:0];
    end

endmodule
