// From sums to results, a word of LANES channels a cycle; every result takes WRITE cycles, whatever its way.
//
//   result = round(sum * multiplier >> shift), and then, by `destination`:
//   0  heads     saturated
//   1  hidden    through the activation function, requantised once more
//   2  residual  added to the old value
//   3  expert    saturated, scaled by the gate score of its token, then added to the old value
//
// The activation function is outside: `activation_x` goes out in cycle 5, and what it becomes is back ACTIVATION cycles later.
// The old value and the score come with the sums.
module edgemoe_write_back #(
    parameter int LANES = 4,
    parameter int SUM_BITS = 48,
    parameter int MULTIPLIER_BITS = 16,
    parameter bit MULTIPLIES = 1'b1,  // the precision has multipliers
    parameter int HEAD_BITS = 16,
    parameter int HIDDEN_BITS = 16,
    parameter int RESIDUAL_BITS = 24,
    parameter int SCORE_BITS = 17,
    parameter int SCORE_FRAC = 16,
    parameter int GELU_BITS = 24,
    parameter int ACTIVATED_BITS = 26,
    parameter int ACTIVATION = 4,  // cycles of the activation function
    parameter int OUT_BITS = 24,  // of a result: the widest of them
    localparam int SCALE_BITS = MULTIPLIER_BITS + 6,
    localparam int WRITE = 8 + ACTIVATION
) (
    input  logic ap_clk,
    input  logic ce,
    input  logic [1:0] destination,
    input  logic [MULTIPLIER_BITS-1:0] hidden_multiplier,
    input  logic [5:0] hidden_shift,
    input  logic signed [HIDDEN_BITS-1:0] hidden_zero,

    input  logic [LANES*RESIDUAL_BITS-1:0] old,  // in cycle 0
    input  logic [SCORE_BITS-1:0] score,
    input  logic [LANES*SUM_BITS-1:0] sums,  // in cycle 1
    input  logic [LANES*SCALE_BITS-1:0] scales,
    output logic [LANES*GELU_BITS-1:0] activation_x,  // in cycle 5
    input  logic [LANES*ACTIVATED_BITS-1:0] activation_y,
    output logic [LANES*OUT_BITS-1:0] results  // in cycle WRITE
);

  localparam int RESULT_BITS = 64;
  logic [LANES*RESIDUAL_BITS-1:0] w4_old;
  logic [LANES*RESIDUAL_BITS-1:0] w7_old;
  logic [SCORE_BITS-1:0] w5_score;

  edgemoe_delay #(.WIDTH(LANES * RESIDUAL_BITS), .CYCLES(4)) old_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(old),
      .out(w4_old)
  );
  edgemoe_delay #(.WIDTH(LANES * RESIDUAL_BITS), .CYCLES(3)) late_old_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(w4_old),
      .out(w7_old)
  );
  edgemoe_delay #(.WIDTH(SCORE_BITS), .CYCLES(5)) gate_score_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(score),
      .out(w5_score)
  );

  wire unused_multiplier = &{1'b0, hidden_multiplier};

  for (genvar lane = 0; lane < LANES; lane++) begin : g_result
    logic signed [SUM_BITS-1:0] sum;
    logic [SCALE_BITS-1:0] scale;
    logic signed [RESULT_BITS-1:0] w2_scaled;
    logic [5:0] w2_shift;
    logic signed [RESULT_BITS:0] w3_shifted;
    logic signed [RESULT_BITS-1:0] w4_result;
    logic signed [RESULT_BITS-1:0] w4_added;
    logic signed [HEAD_BITS-1:0] w5_head;
    logic signed [RESIDUAL_BITS-1:0] w5_residual;
    logic signed [RESIDUAL_BITS-1:0] w5_expert;
    logic signed [RESIDUAL_BITS+SCORE_BITS:0] w6_weighted;
    logic signed [RESIDUAL_BITS-1:0] w8_expert;
    logic signed [ACTIVATED_BITS-1:0] activated;
    logic signed [ACTIVATED_BITS+MULTIPLIER_BITS:0] scaled;
    logic signed [HIDDEN_BITS-1:0] hidden;
    logic signed [HEAD_BITS-1:0] head;
    logic signed [RESIDUAL_BITS-1:0] residual;
    logic signed [RESIDUAL_BITS-1:0] expert;
    wire unused_scale = &{1'b0, scale};

    assign sum = sums[lane*SUM_BITS+:SUM_BITS];
    assign scale = scales[lane*SCALE_BITS+:SCALE_BITS];
    assign activated = activation_y[lane*ACTIVATED_BITS+:ACTIVATED_BITS];
    assign w4_added = w4_result + RESULT_BITS'($signed(w4_old[lane*RESIDUAL_BITS+:RESIDUAL_BITS]));

    // Without multipliers all are 1.
    if (MULTIPLIES) begin : g_multiplied
      always_ff @(posedge ap_clk)
        if (ce) begin
          w2_scaled <= RESULT_BITS'(sum * $signed({1'b0, scale[MULTIPLIER_BITS-1:0]}));
          scaled <= activated * $signed({1'b0, hidden_multiplier});
        end
    end else begin : g_plain
      always_ff @(posedge ap_clk)
        if (ce) begin
          w2_scaled <= RESULT_BITS'(sum);
          scaled <= (ACTIVATED_BITS + MULTIPLIER_BITS + 1)'(activated);
        end
    end

    always_ff @(posedge ap_clk)
      if (ce) begin
        w2_shift <= scale[MULTIPLIER_BITS+:6];
        w3_shifted <= $signed({w2_scaled, 1'b0}) >>> w2_shift;
        w4_result <= w3_shifted[RESULT_BITS:1] + RESULT_BITS'($signed({1'b0, w3_shifted[0]}));
        w6_weighted <= w5_expert * $signed({1'b0, w5_score});
      end

    edgemoe_saturate #(.IN_BITS(RESULT_BITS), .OUT_BITS(HEAD_BITS)) saturate_head (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(w4_result),
        .out(w5_head)
    );
    edgemoe_saturate #(.IN_BITS(RESULT_BITS), .OUT_BITS(GELU_BITS)) saturate_gelu_input (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(w4_result),
        .out(activation_x[lane*GELU_BITS+:GELU_BITS])
    );
    edgemoe_saturate #(.IN_BITS(RESULT_BITS), .OUT_BITS(RESIDUAL_BITS)) saturate_residual (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(w4_added),
        .out(w5_residual)
    );
    edgemoe_saturate #(.IN_BITS(RESULT_BITS), .OUT_BITS(RESIDUAL_BITS)) saturate_expert (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(w4_result),
        .out(w5_expert)
    );
    edgemoe_round_saturate #(
        .VALUE_BITS(RESIDUAL_BITS + SCORE_BITS + 1),
        .ADDEND_BITS(RESIDUAL_BITS),
        .OUT_BITS(RESIDUAL_BITS)
    ) round_expert (
        .ap_clk(ap_clk),
        .ce(ce),
        .value(w6_weighted),
        .shift(6'(SCORE_FRAC)),
        .addend(w7_old[lane*RESIDUAL_BITS+:RESIDUAL_BITS]),
        .out(w8_expert)
    );
    edgemoe_round_saturate #(
        .VALUE_BITS(ACTIVATED_BITS + MULTIPLIER_BITS + 1),
        .ADDEND_BITS(HIDDEN_BITS),
        .OUT_BITS(HIDDEN_BITS)
    ) round_hidden (
        .ap_clk(ap_clk),
        .ce(ce),
        .value(scaled),
        .shift(hidden_shift),
        .addend(hidden_zero),
        .out(hidden)
    );

    // Whatever its way, a result leaves at the same time.
    edgemoe_delay #(.WIDTH(HEAD_BITS + RESIDUAL_BITS), .CYCLES(WRITE - 5)) short_line (
        .ap_clk(ap_clk),
        .ce(ce),
        .in({w5_head, w5_residual}),
        .out({head, residual})
    );
    edgemoe_delay #(.WIDTH(RESIDUAL_BITS), .CYCLES(WRITE - 8)) expert_line (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(w8_expert),
        .out(expert)
    );

    always_comb
      case (destination)
        2'd0: results[lane*OUT_BITS+:OUT_BITS] = OUT_BITS'(head);
        2'd1: results[lane*OUT_BITS+:OUT_BITS] = OUT_BITS'(hidden);
        2'd2: results[lane*OUT_BITS+:OUT_BITS] = OUT_BITS'(residual);
        default: results[lane*OUT_BITS+:OUT_BITS] = OUT_BITS'(expert);
      endcase
  end

endmodule
