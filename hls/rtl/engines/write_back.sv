// From sums to results, a word of LANES channels a cycle; every result takes WRITE cycles, whatever its way.
//
//   result = round(sum * multiplier >> shift), and then, by `destination`:
//   0  heads     saturated
//   1  hidden    through the activation function, requantised once more
//   2  residual  added to the old value
//   3  expert    saturated, scaled by the gate score of its token, then added to the old value
//
// The activation function is outside: `activation_x` goes out in cycle 6, and what it becomes is back ACTIVATION cycles later.
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
    localparam int WRITE = 10 + ACTIVATION
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
    output logic [LANES*GELU_BITS-1:0] activation_x,  // in cycle 6
    input  logic [LANES*ACTIVATED_BITS-1:0] activation_y,
    output logic [LANES*OUT_BITS-1:0] results  // in cycle WRITE
);

  localparam int RESULT_BITS = 64;
  logic [LANES*RESIDUAL_BITS-1:0] w5_old;
  logic [LANES*RESIDUAL_BITS-1:0] w8_old;
  logic [SCORE_BITS-1:0] w6_score;

  edgemoe_delay #(.WIDTH(LANES * RESIDUAL_BITS), .CYCLES(5)) old_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(old),
      .out(w5_old)
  );
  edgemoe_delay #(.WIDTH(LANES * RESIDUAL_BITS), .CYCLES(3)) late_old_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(w5_old),
      .out(w8_old)
  );
  edgemoe_delay #(.WIDTH(SCORE_BITS), .CYCLES(6)) gate_score_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(score),
      .out(w6_score)
  );

  wire unused_multiplier = &{1'b0, hidden_multiplier};

  for (genvar lane = 0; lane < LANES; lane++) begin : g_result
    logic signed [SUM_BITS-1:0] sum;
    logic [SCALE_BITS-1:0] scale;
    logic signed [RESULT_BITS-1:0] w3_scaled;
    logic [5:0] w3_shift;
    logic signed [RESULT_BITS:0] w4_shifted;
    logic signed [RESULT_BITS-1:0] w5_result;
    logic signed [RESULT_BITS-1:0] w6_added;
    logic signed [HEAD_BITS-1:0] w6_head;
    logic signed [RESIDUAL_BITS-1:0] w6_expert;
    logic signed [RESIDUAL_BITS-1:0] w7_residual;
    logic signed [RESIDUAL_BITS+SCORE_BITS:0] w7_weighted;
    logic signed [RESIDUAL_BITS-1:0] w9_expert;
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

    // Without multipliers all are 1.
    if (MULTIPLIES) begin : g_multiplied
      logic signed [SUM_BITS+MULTIPLIER_BITS:0] product;
      wire unused_product = &{1'b0, product};
      edgemoe_product #(.A_BITS(SUM_BITS), .B_BITS(MULTIPLIER_BITS + 1), .CYCLES(2)) by_multiplier (
          .ap_clk(ap_clk),
          .ce(ce),
          .a(sum),
          .b({1'b0, scale[MULTIPLIER_BITS-1:0]}),
          .out(product)
      );
      assign w3_scaled = RESULT_BITS'(product);
      edgemoe_product #(.A_BITS(ACTIVATED_BITS), .B_BITS(MULTIPLIER_BITS + 1), .CYCLES(2)) by_hidden_multiplier (
          .ap_clk(ap_clk),
          .ce(ce),
          .a(activated),
          .b({1'b0, hidden_multiplier}),
          .out(scaled)
      );
    end else begin : g_plain
      logic signed [SUM_BITS-1:0] w3_sum;
      edgemoe_delay #(.WIDTH(SUM_BITS), .CYCLES(2)) sum_line (
          .ap_clk(ap_clk),
          .ce(ce),
          .in(sum),
          .out(w3_sum)
      );
      assign w3_scaled = RESULT_BITS'(w3_sum);
      logic signed [ACTIVATED_BITS-1:0] late_activated;
      edgemoe_delay #(.WIDTH(ACTIVATED_BITS), .CYCLES(2)) activated_line (
          .ap_clk(ap_clk),
          .ce(ce),
          .in(activated),
          .out(late_activated)
      );
      assign scaled = (ACTIVATED_BITS + MULTIPLIER_BITS + 1)'(late_activated);
    end

    always_ff @(posedge ap_clk)
      if (ce) begin
        w4_shifted <= $signed({w3_scaled, 1'b0}) >>> w3_shift;
        w5_result <= w4_shifted[RESULT_BITS:1] + RESULT_BITS'($signed({1'b0, w4_shifted[0]}));
        w6_added <= w5_result + RESULT_BITS'($signed(w5_old[lane*RESIDUAL_BITS+:RESIDUAL_BITS]));
        w7_weighted <= w6_expert * $signed({1'b0, w6_score});
      end

    edgemoe_delay #(.WIDTH(6), .CYCLES(2)) scale_shift_line (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(scale[MULTIPLIER_BITS+:6]),
        .out(w3_shift)
    );

    edgemoe_saturate #(.IN_BITS(RESULT_BITS), .OUT_BITS(HEAD_BITS)) saturate_head (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(w5_result),
        .out(w6_head)
    );
    edgemoe_saturate #(.IN_BITS(RESULT_BITS), .OUT_BITS(GELU_BITS)) saturate_gelu_input (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(w5_result),
        .out(activation_x[lane*GELU_BITS+:GELU_BITS])
    );
    edgemoe_saturate #(.IN_BITS(RESULT_BITS), .OUT_BITS(RESIDUAL_BITS)) saturate_residual (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(w6_added),
        .out(w7_residual)
    );
    edgemoe_saturate #(.IN_BITS(RESULT_BITS), .OUT_BITS(RESIDUAL_BITS)) saturate_expert (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(w5_result),
        .out(w6_expert)
    );
    edgemoe_round_saturate #(
        .VALUE_BITS(RESIDUAL_BITS + SCORE_BITS + 1),
        .ADDEND_BITS(RESIDUAL_BITS),
        .OUT_BITS(RESIDUAL_BITS)
    ) round_expert (
        .ap_clk(ap_clk),
        .ce(ce),
        .value(w7_weighted),
        .shift(6'(SCORE_FRAC)),
        .addend(w8_old[lane*RESIDUAL_BITS+:RESIDUAL_BITS]),
        .out(w9_expert)
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
    edgemoe_delay #(.WIDTH(HEAD_BITS), .CYCLES(WRITE - 6)) head_line (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(w6_head),
        .out(head)
    );
    edgemoe_delay #(.WIDTH(RESIDUAL_BITS), .CYCLES(WRITE - 7)) residual_line (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(w7_residual),
        .out(residual)
    );
    edgemoe_delay #(.WIDTH(RESIDUAL_BITS), .CYCLES(WRITE - 9)) expert_line (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(w9_expert),
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
