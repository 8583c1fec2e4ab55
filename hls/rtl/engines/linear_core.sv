// Linear engine on memory ports: weight buffer, array of multipliers, write-back and the sequencer that leads them.
//
// `ce` halts everything but the loading of weights. Operands: a tile's word of each token is on `x` two cycles after
// `x_address`. Results: when `old_enable` is high, `old` and `score` of row `old_row` and word `old_word` are taken in that very cycle;
// `early` shows them EARLY cycles before, for those who must look up what the row stands for. The result of
// that row and word is on `results` WRITE cycles later.
module edgemoe_linear_core #(
    parameter int LANES = 4,
    parameter int OUTPUTS = 8,
    parameter int TOKEN_TILE = 2,
    parameter int X_BITS = 8,
    parameter int W_BITS = 8,
    parameter int W_STORED = 8,
    parameter int BIAS_BITS = 40,
    parameter int MULTIPLIER_BITS = 16,
    parameter bit MULTIPLIES = 1'b1,
    parameter int RECORD_STORED = 64,
    parameter int SHIFT_STORED = 8,
    parameter int SUM_BITS = 48,
    parameter int PACK_BITS = 0,
    parameter int HEAD_BITS = 16,
    parameter int HIDDEN_BITS = 16,
    parameter int RESIDUAL_BITS = 24,
    parameter int SCORE_BITS = 17,
    parameter int SCORE_FRAC = 16,
    parameter int GELU_BITS = 24,
    parameter int ACTIVATED_BITS = 26,
    parameter int ACTIVATION = 4,
    parameter int OUT_BITS = 24,
    parameter int BEAT_BITS = 64,
    parameter int RECORD_BEATS = 1,
    parameter int WORD_BEATS = 1,
    parameter int WEIGHT_ROWS = 64,
    parameter int MAX_GROUP = 4,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 4,
    parameter int OUT_WORD_BITS = 6,
    parameter int BLOCK_BITS = 4,
    parameter int X_ADDRESS_BITS = 8,
    parameter int STEP_BITS = 4,
    parameter int EARLY = 4 + $clog2(LANES),  // at least SUM
    parameter WEIGHT_STYLE = "auto"
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic ce,

    // A layer to compute, taken while idle; its weights come by themselves, in the same order.
    input  logic start,
    output logic idle,
    output logic done,
    input  logic [TOKEN_BITS-1:0] tokens,
    input  logic [WORD_BITS-1:0] in_words,
    input  logic [OUT_WORD_BITS-1:0] out_words,
    input  logic [BLOCK_BITS-1:0] blocks,
    input  logic [X_ADDRESS_BITS-1:0] x_first,
    input  logic [X_ADDRESS_BITS-1:0] x_stride,
    input  logic [1:0] destination,
    input  logic [MULTIPLIER_BITS-1:0] hidden_multiplier,
    input  logic [5:0] hidden_shift,
    input  logic signed [HIDDEN_BITS-1:0] hidden_zero,

    // A layer to load: see `edgemoe_weight_buffer`.
    input  logic load_valid,
    output logic load_ready,
    input  logic [WORD_BITS-1:0] load_words,
    input  logic [BLOCK_BITS-1:0] load_blocks,
    input  logic beat_valid,
    output logic beat_ready,
    input  logic [BEAT_BITS-1:0] beat,
    output logic beat_last,

    input  logic operands_valid,
    output logic x_enable,
    output logic [X_ADDRESS_BITS-1:0] x_address,
    input  logic [TOKEN_TILE*LANES*X_BITS-1:0] x,

    output logic early_enable,
    output logic [TOKEN_BITS-1:0] early_row,
    output logic [OUT_WORD_BITS-1:0] early_word,
    output logic old_enable,
    output logic [TOKEN_BITS-1:0] old_row,
    output logic [OUT_WORD_BITS-1:0] old_word,
    output logic old_last,
    input  logic [LANES*RESIDUAL_BITS-1:0] old,
    input  logic [SCORE_BITS-1:0] score,

    output logic [LANES*GELU_BITS-1:0] activation_x,
    input  logic [LANES*ACTIVATED_BITS-1:0] activation_y,

    output logic out_valid,
    output logic out_last,
    output logic [LANES*OUT_BITS-1:0] results
);

  localparam int PARTS = OUTPUTS / LANES;
  localparam int GROUP_BITS = $clog2(MAX_GROUP + 1);
  localparam int ROW_BITS = $clog2(WEIGHT_ROWS + 1);
  localparam int TILE_BITS = TOKEN_TILE > 1 ? $clog2(TOKEN_TILE) : 1;
  localparam int PART_BITS = PARTS > 1 ? $clog2(PARTS) : 1;
  localparam int SCALE_BITS = MULTIPLIER_BITS + 6;
  localparam int SUM = 4 + $clog2(LANES);  // cycles from an operand's address to the sum that it completes
  localparam int WRITE = 10 + ACTIVATION;  // from a sum to the result that leaves

  // ---- Order.

  logic pipeline_busy;
  logic [1:0] half_full;
  logic [1:0] half_freed;
  logic [2*GROUP_BITS-1:0] half_blocks;
  logic group_ends;
  logic half;
  logic [GROUP_BITS-1:0] block;
  logic [ROW_BITS-1:0] weight_row;
  logic multiplies;
  logic first;
  logic round_over;
  logic [GROUP_BITS-1:0] write_block;
  logic [TILE_BITS-1:0] write_row;
  logic [PART_BITS-1:0] write_part;
  logic last_write;

  edgemoe_linear_sequencer #(
      .TOKEN_TILE(TOKEN_TILE),
      .PARTS(PARTS),
      .TOKEN_BITS(TOKEN_BITS),
      .WORD_BITS(WORD_BITS),
      .OUT_WORD_BITS(OUT_WORD_BITS),
      .BLOCK_BITS(BLOCK_BITS),
      .GROUP_BITS(GROUP_BITS),
      .ROW_BITS(ROW_BITS),
      .X_ADDRESS_BITS(X_ADDRESS_BITS),
      .STEP_BITS(STEP_BITS)
  ) sequencer (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(ce),
      .start(start),
      .tokens(tokens),
      .in_words(in_words),
      .out_words(out_words),
      .blocks(blocks),
      .x_first(x_first),
      .x_stride(x_stride),
      .operands_valid(operands_valid),
      .idle(idle),
      .done(done),
      .pipeline_busy(pipeline_busy),
      .half_full(half_full),
      .half_blocks(half_blocks),
      .group_ends(group_ends),
      .x_address(x_address),
      .half(half),
      .block(block),
      .weight_row(weight_row),
      .multiplies(multiplies),
      .first(first),
      .round_over(round_over),
      .writes(early_enable),
      .write_token(early_row),
      .write_word(early_word),
      .write_block(write_block),
      .write_row(write_row),
      .write_part(write_part),
      .last_write(last_write)
  );

  assign x_enable = multiplies;

  // How the results of this layer leave.
  logic [1:0] way;
  logic [MULTIPLIER_BITS-1:0] multiplier;
  logic [5:0] shift;
  logic signed [HIDDEN_BITS-1:0] zero;

  always_ff @(posedge ap_clk)
    if (start && idle) begin
      way <= destination;
      multiplier <= hidden_multiplier;
      shift <= hidden_shift;
      zero <= hidden_zero;
    end

  // ---- Weights.

  logic [OUTPUTS*LANES*W_BITS-1:0] weights;
  logic bias_half;
  logic [GROUP_BITS-1:0] bias_block;
  logic [OUTPUTS*BIAS_BITS-1:0] bias;
  logic scale_half;
  logic [GROUP_BITS-1:0] scale_block;
  logic [PARTS-1:0][LANES*SCALE_BITS-1:0] w1_scales;

  edgemoe_weight_buffer #(
      .LANES(LANES),
      .OUTPUTS(OUTPUTS),
      .W_BITS(W_BITS),
      .W_STORED(W_STORED),
      .BIAS_BITS(BIAS_BITS),
      .MULTIPLIER_BITS(MULTIPLIER_BITS),
      .MULTIPLIES(MULTIPLIES),
      .RECORD_STORED(RECORD_STORED),
      .SHIFT_STORED(SHIFT_STORED),
      .BEAT_BITS(BEAT_BITS),
      .RECORD_BEATS(RECORD_BEATS),
      .WORD_BEATS(WORD_BEATS),
      .ROWS(WEIGHT_ROWS),
      .MAX_GROUP(MAX_GROUP),
      .WORD_BITS(WORD_BITS),
      .BLOCK_BITS(BLOCK_BITS),
      .STYLE(WEIGHT_STYLE)
  ) weight_buffer (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .load_valid(load_valid),
      .load_ready(load_ready),
      .load_words(load_words),
      .load_blocks(load_blocks),
      .beat_valid(beat_valid),
      .beat_ready(beat_ready),
      .beat(beat),
      .beat_last(beat_last),
      .half_full(half_full),
      .half_blocks(half_blocks),
      .half_freed(half_freed),
      .ce(ce),
      .row_half(half),
      .row(weight_row),
      .row_weights(weights),
      .bias_half(bias_half),
      .bias_block(bias_block),
      .bias(bias),
      .scale_half(scale_half),
      .scale_block(scale_block),
      .scales(w1_scales)
  );

  // ---- Sums.

  logic multiplies_2;
  logic first_2;
  logic round_over_2;
  logic [TOKEN_TILE-1:0][PARTS-1:0][LANES*SUM_BITS-1:0] sums;

  edgemoe_delay #(.WIDTH(GROUP_BITS + 1), .CYCLES(SUM - 1)) bias_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in({half, block}),
      .out({bias_half, bias_block})
  );
  edgemoe_delay #(.WIDTH(3), .CYCLES(2)) operand_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in({multiplies, first, round_over}),
      .out({multiplies_2, first_2, round_over_2})
  );
  edgemoe_mac_array #(
      .TOKEN_TILE(TOKEN_TILE),
      .OUTPUTS(OUTPUTS),
      .LANES(LANES),
      .X_BITS(X_BITS),
      .W_BITS(W_BITS),
      .BIAS_BITS(BIAS_BITS),
      .SUM_BITS(SUM_BITS),
      .PACK_BITS(PACK_BITS)
  ) array (
      .ap_clk(ap_clk),
      .ce(ce),
      .x(x),
      .weights(weights),
      .multiplies(multiplies_2),
      .first(first_2),
      .round_over(round_over_2),
      .bias(bias),
      .done(sums)
  );

  // ---- Results: one word a cycle.

  logic w0_busy;
  logic out_busy;
  logic [TILE_BITS-1:0] w0_row;
  logic [PART_BITS-1:0] w0_part;
  logic [PART_BITS-1:0] w1_part;
  logic [LANES*SUM_BITS-1:0] w1_sums;
  logic [LANES*SUM_BITS-1:0] late_sums;
  logic [LANES*SCALE_BITS-1:0] late_scales;

  edgemoe_valid_delay #(.CYCLES(EARLY)) write_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(ce),
      .in(early_enable),
      .out(old_enable),
      .any(w0_busy)
  );
  edgemoe_delay #(.WIDTH(TILE_BITS + PART_BITS), .CYCLES(SUM)) write_place_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in({write_row, write_part}),
      .out({w0_row, w0_part})
  );
  // The records are asked for a cycle earlier, as they take two.
  edgemoe_delay #(.WIDTH(1 + GROUP_BITS), .CYCLES(SUM - 1)) scale_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in({half, write_block}),
      .out({scale_half, scale_block})
  );
  edgemoe_delay #(.WIDTH(1 + TOKEN_BITS + OUT_WORD_BITS), .CYCLES(EARLY)) write_note_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in({last_write, early_row, early_word}),
      .out({old_last, old_row, old_word})
  );

  // The word's sums; their multipliers and shifts come with them.
  always_ff @(posedge ap_clk)
    if (ce) begin
      w1_sums <= sums[w0_row][w0_part];
      w1_part <= w0_part;
    end

  // They wait for a value that takes longer to be looked up.
  edgemoe_delay #(.WIDTH(LANES * (SUM_BITS + SCALE_BITS)), .CYCLES(EARLY - SUM)) late_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in({w1_sums, w1_scales[w1_part]}),
      .out({late_sums, late_scales})
  );

  edgemoe_write_back #(
      .LANES(LANES),
      .SUM_BITS(SUM_BITS),
      .MULTIPLIER_BITS(MULTIPLIER_BITS),
      .MULTIPLIES(MULTIPLIES),
      .HEAD_BITS(HEAD_BITS),
      .HIDDEN_BITS(HIDDEN_BITS),
      .RESIDUAL_BITS(RESIDUAL_BITS),
      .SCORE_BITS(SCORE_BITS),
      .SCORE_FRAC(SCORE_FRAC),
      .GELU_BITS(GELU_BITS),
      .ACTIVATED_BITS(ACTIVATED_BITS),
      .ACTIVATION(ACTIVATION),
      .OUT_BITS(OUT_BITS)
  ) write_back (
      .ap_clk(ap_clk),
      .ce(ce),
      .destination(way),
      .hidden_multiplier(multiplier),
      .hidden_shift(shift),
      .hidden_zero(zero),
      .old(old),
      .score(score),
      .sums(late_sums),
      .scales(late_scales),
      .activation_x(activation_x),
      .activation_y(activation_y),
      .results(results)
  );
  edgemoe_valid_delay #(.CYCLES(WRITE)) out_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(ce),
      .in(old_enable),
      .out(out_valid),
      .any(out_busy)
  );
  edgemoe_delay #(.WIDTH(1), .CYCLES(WRITE)) out_last_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(old_last),
      .out(out_last)
  );
  assign pipeline_busy = w0_busy || out_busy;

  // A half is free when the last of its scales has been read.
  logic freed;
  logic freed_half;
  logic unused_freed_busy;

  edgemoe_valid_delay #(.CYCLES(SUM + 1)) freed_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(ce),
      .in(group_ends),
      .out(freed),
      .any(unused_freed_busy)
  );
  edgemoe_delay #(.WIDTH(1), .CYCLES(SUM + 1)) freed_half_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(half),
      .out(freed_half)
  );
`ifndef SYNTHESIS
  initial assert (EARLY >= SUM);
`endif

  assign half_freed = freed && ce ? 2'b01 << freed_half : 2'b00;

endmodule
