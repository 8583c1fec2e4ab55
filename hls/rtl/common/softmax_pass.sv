// One row's running maximum and sum: a score a cycle, EXP2 + 2 cycles from a score to the sum that includes it.
//
//   c = ceil(x);  c > m:  s = round(s / 2**(c - m)), m = c;  s = s + 2**(x - m)
module edgemoe_softmax_pass #(
    parameter int SCORE_BITS = 24,
    parameter int SCORE_FRAC = 16,
    parameter int MAXIMUM_BITS = 9,
    parameter int SUM_BITS = 32,
    parameter int EXP_BITS = 23,
    parameter int EXP2 = 4  // cycles of the exponential
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic ce,
    input  logic signed [SCORE_BITS-1:0] score,
    input  logic valid,
    input  logic first,  // of its row
    input  logic last,
    output logic signed [MAXIMUM_BITS-1:0] maximum,
    output logic [SUM_BITS-1:0] sum,
    output logic out_valid,
    output logic out_last,
    output logic busy
);

  localparam int LARGEST_SHIFT = SUM_BITS + 1;  // shifts everything out, the rounding bit too

  // 1: the maximum, and how far it moved.
  logic signed [MAXIMUM_BITS-1:0] ceiling;
  logic signed [MAXIMUM_BITS-1:0] maximum_1;
  logic [MAXIMUM_BITS:0] step;
  logic moves;
  logic [5:0] shift_1;
  logic [SCORE_BITS:0] difference_1;
  logic first_1;

  // Up by all but one unit of a whole, then down to the whole.
  assign ceiling = MAXIMUM_BITS'(((SCORE_BITS + 1)'(score) + (SCORE_BITS + 1)'(2 ** SCORE_FRAC - 1)) >>> SCORE_FRAC);
  assign moves = first || ceiling > maximum_1;
  assign step = (MAXIMUM_BITS + 1)'(ceiling) - (MAXIMUM_BITS + 1)'(maximum_1);

  always_ff @(posedge ap_clk)
    if (ce && valid) begin
      if (moves) maximum_1 <= ceiling;
      shift_1 <= !moves ? 6'd0 : step > (MAXIMUM_BITS + 1)'(LARGEST_SHIFT) ? 6'(LARGEST_SHIFT) : step[5:0];
      difference_1 <= (SCORE_BITS + 1)'({moves ? ceiling : maximum_1, {SCORE_FRAC{1'b0}}}
          - (MAXIMUM_BITS + SCORE_FRAC)'(score));
      first_1 <= first;
    end

  // 2 to EXP2 + 1: the exponential.
  logic [EXP_BITS-1:0] exponential;
  logic [5:0] shift;
  logic first_sum;
  logic signed [MAXIMUM_BITS-1:0] maximum_sum;
  logic valid_sum;
  logic line_busy;
  logic last_sum;

  edgemoe_exp2_unit exp2 (
      .ap_clk(ap_clk),
      .ce(ce),
      .difference(difference_1),
      .exponential(exponential)
  );
  edgemoe_delay #(.WIDTH(7 + MAXIMUM_BITS), .CYCLES(EXP2)) shift_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in({first_1, shift_1, maximum_1}),
      .out({first_sum, shift, maximum_sum})
  );
  edgemoe_delay #(.WIDTH(1), .CYCLES(EXP2 + 1)) last_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(last),
      .out(last_sum)
  );
  edgemoe_valid_delay #(.CYCLES(EXP2 + 1)) valid_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(ce),
      .in(valid),
      .out(valid_sum),
      .any(line_busy)
  );

  // EXP2 + 2: the sum.
  logic [SUM_BITS:0] shifted;
  assign shifted = {sum, 1'b0} >> shift;

  always_ff @(posedge ap_clk)
    if (ce && valid_sum) begin
      sum <= (first_sum ? '0 : shifted[SUM_BITS:1] + SUM_BITS'(shifted[0])) + SUM_BITS'(exponential);
      maximum <= maximum_sum;
    end

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      out_valid <= 1'b0;
      out_last  <= 1'b0;
    end else if (ce) begin
      out_valid <= valid_sum;
      out_last  <= last_sum;
    end

  assign busy = line_busy || out_valid;

endmodule
