// One row's running maximum and sum: a score a cycle, EXP2 + 4 cycles from a score to the sum that includes it.
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
  localparam int STEP_BITS = MAXIMUM_BITS + 1;

  // 1: the score, rounded up: its whole part, and one more if there is any fraction.
  logic signed [SCORE_BITS-1:0] score_1;
  logic signed [MAXIMUM_BITS-1:0] ceiling_1;
  logic valid_1;
  logic first_1;

  // 2: the maximum, and how far it moved. Only this far do scores depend on each other.
  logic signed [SCORE_BITS-1:0] score_2;
  logic signed [MAXIMUM_BITS-1:0] maximum_2;
  logic [STEP_BITS-1:0] step;
  logic [STEP_BITS-1:0] step_2;
  logic moves;
  logic first_2;

  // 3: the distance from it.
  logic [SCORE_BITS:0] difference_3;

  assign step = STEP_BITS'(ceiling_1) - STEP_BITS'(maximum_2);
  assign moves = first_1 || (!step[STEP_BITS-1] && |step);

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) valid_1 <= 1'b0;
    else if (ce) valid_1 <= valid;

  always_ff @(posedge ap_clk)
    if (ce) begin
      score_1 <= score;
      ceiling_1 <= MAXIMUM_BITS'($signed(score[SCORE_BITS-1:SCORE_FRAC])) + MAXIMUM_BITS'(|score[SCORE_FRAC-1:0]);
      first_1 <= first;
      score_2 <= score_1;
      if (valid_1 && moves) maximum_2 <= ceiling_1;
      step_2 <= moves ? step : '0;
      first_2 <= first_1;
      difference_3 <= (SCORE_BITS + 1)'({maximum_2, {SCORE_FRAC{1'b0}}} - (MAXIMUM_BITS + SCORE_FRAC)'(score_2));
    end

  // 4 to EXP2 + 3: the exponential.
  logic [EXP_BITS-1:0] exponential;
  logic [STEP_BITS-1:0] late_step;
  logic late_first;
  logic signed [MAXIMUM_BITS-1:0] late_maximum;
  logic [5:0] shift;
  logic first_sum;
  logic signed [MAXIMUM_BITS-1:0] maximum_sum;
  logic valid_sum;
  logic line_busy;
  logic last_sum;

  edgemoe_exp2_unit exp2 (
      .ap_clk(ap_clk),
      .ce(ce),
      .difference(difference_3),
      .exponential(exponential)
  );
  edgemoe_delay #(.WIDTH(1 + STEP_BITS + MAXIMUM_BITS), .CYCLES(EXP2)) step_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in({first_2, step_2, maximum_2}),
      .out({late_first, late_step, late_maximum})
  );

  always_ff @(posedge ap_clk)
    if (ce) begin
      shift <= late_step > STEP_BITS'(LARGEST_SHIFT) ? 6'(LARGEST_SHIFT) : late_step[5:0];
      first_sum <= late_first;
      maximum_sum <= late_maximum;
    end

  edgemoe_delay #(.WIDTH(1), .CYCLES(EXP2 + 3)) last_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(last),
      .out(last_sum)
  );
  edgemoe_valid_delay #(.CYCLES(EXP2 + 2)) valid_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(ce),
      .in(valid_1),
      .out(valid_sum),
      .any(line_busy)
  );

  // EXP2 + 4: the sum. The last bit that is shifted out rounds it: added to itself, it is carried.
  logic [SUM_BITS:0] kept;
  logic [SUM_BITS:0] total;
  wire unused_total = &{1'b0, total[0]};
  assign kept  = first_sum ? '0 : {sum, 1'b0} >> shift;
  assign total = kept + {SUM_BITS'(exponential), kept[0]};

  always_ff @(posedge ap_clk)
    if (ce && valid_sum) begin
      sum <= total[SUM_BITS:1];
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

  assign busy = valid_1 || line_busy || out_valid;

endmodule
