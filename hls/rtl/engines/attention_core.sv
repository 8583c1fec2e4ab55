// Reordered attention (Edge-MoE, section IV-A), on memory ports: SLOTS query rows share each key, and their scores stay on chip.
//
// A slot holds one query row. The row of slot o enters at the step whose key is o and meets the keys in the order
// o, o + 1, ..., o - 1, while its softmax runs along. In a second turn, while the next block's row takes its first
// in the same slot, its scores become weights and weigh the values; then the row leaves, divided by its sum. So
// blocks follow each other without a gap, and a key is read once for all rows.
//
// A step takes `step` cycles, of which the first `words` read a word of the key (and of the row that enters) each.
// The second turn runs DISTANCE cycles behind the first, so that a row's last score has become part of its sum.
//
// `ce` halts everything. A head begins once `head_valid` says that its queries, keys and values may be read, from address
// `head_first` on, `stride` words from a token to the next. What an address asks for is there READ cycles later.
module edgemoe_attention_core #(
    parameter int LANES = 4,
    parameter int SLOTS = 4,
    parameter int Q_BITS = 16,
    parameter int OUT_BITS = 16,
    parameter int HEAD_BITS = 4,
    parameter int KEY_BITS = 8,
    parameter int WORD_BITS = 3,
    parameter int STEP_BITS = 3,
    parameter int ADDRESS_BITS = 10,
    parameter int MAX_TOKENS = 16,
    parameter int MAX_WORDS = 4,
    parameter int SCORE_LIFT = 0,  // bits that products are shifted left first
    parameter int READ = 1,
    parameter int SCORE_BITS = 24,
    parameter int SCORE_FRAC = 16,
    parameter int MAXIMUM_BITS = 9,
    parameter int SUM_BITS = 32,
    parameter int WEIGHT_BITS = 23,
    parameter int WEIGHT_FRAC = 22,
    parameter int WEIGHTED_BITS = 48,
    parameter int MANTISSA_FRAC = 16,
    parameter int EXP2 = 4,  // cycles of the exponential
    parameter int MANTISSA = 5  // cycles of the reciprocal
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic ce,

    // Heads to compute, taken while idle.
    input  logic start,
    output logic idle,
    output logic done,
    input  logic [HEAD_BITS-1:0] heads,
    input  logic [KEY_BITS-1:0] tokens,
    input  logic [WORD_BITS-1:0] words,
    input  logic [KEY_BITS-1:0] rows,  // of a block
    input  logic [ADDRESS_BITS-1:0] stride,
    input  logic [ADDRESS_BITS-1:0] block_stride,  // rows * stride
    input  logic [STEP_BITS-1:0] step,
    input  logic [5:0] score_shift,
    input  logic signed [7:0] attention_shift,

    input  logic head_valid,
    output logic head_done,
    input  logic [ADDRESS_BITS-1:0] head_first,

    output logic [ADDRESS_BITS-1:0] q_address,
    output logic [ADDRESS_BITS-1:0] k_address,
    output logic [ADDRESS_BITS-1:0] v_address,
    input  logic [LANES*Q_BITS-1:0] q,
    input  logic [LANES*Q_BITS-1:0] k,
    input  logic [LANES*Q_BITS-1:0] v,

    output logic out_valid,
    output logic [KEY_BITS-1:0] out_row,
    output logic [WORD_BITS-1:0] out_word,
    output logic out_last,  // of the head
    output logic [LANES*OUT_BITS-1:0] mixed
);

  localparam int SCORE_ADDRESS_BITS = MAX_TOKENS > 1 ? $clog2(MAX_TOKENS) : 1;  // of the keys alone: KEY_BITS also holds their number
  localparam int DOT_BITS = 2 * Q_BITS + $clog2(LANES);
  localparam int PRODUCT_BITS = DOT_BITS + $clog2(MAX_WORDS);
  localparam int MANTISSA_BITS = MANTISSA_FRAC + 1;
  // The largest exponential of a row alone is more than a half: its sum has its leading one here or above.
  localparam int LEAST_POSITION = WEIGHT_FRAC - 1;
  localparam int ALIGNED_BITS = Q_BITS + LEAST_POSITION + 2;
  localparam int MIXED_BITS = ALIGNED_BITS + MANTISSA_BITS + 1;

  // Cycles from a step's first cycle (or word) to what comes of it.
  localparam int ROUND = 2;
  localparam int DOT = READ + 3 + $clog2(LANES);  // the sum of a word's products
  localparam int SCORE = DOT + 1 + ROUND;  // the score
  localparam int DISTANCE = SCORE + EXP2 + 3;  // the second turn
  localparam int WEIGHT = 3 + EXP2;  // from the second turn's start: the weight
  localparam int OUT = DISTANCE + WEIGHT + 2 + ROUND + 3 + ROUND;  // that, divided

  // ---- Steps.

  logic busy;
  logic running;
  logic draining;
  logic [HEAD_BITS-1:0] head_count;
  logic [KEY_BITS-1:0] token_count;
  logic [WORD_BITS-1:0] word_count;
  logic [KEY_BITS-1:0] row_count;
  logic [ADDRESS_BITS-1:0] token_stride;
  logic [ADDRESS_BITS-1:0] rows_stride;
  logic [KEY_BITS-1:0] token_end;  // number of the last one
  logic [STEP_BITS-1:0] step_end;
  logic [5:0] shift_of_scores;
  logic [5:0] mixed_shift;
  logic [HEAD_BITS-1:0] heads_out;
  logic [STEP_BITS-1:0] cycle;
  logic [KEY_BITS-1:0] key;
  logic [ADDRESS_BITS-1:0] first_address;  // of the head
  logic [ADDRESS_BITS-1:0] key_address;  // of the key's first word
  logic [1:0] turns;  // that the first block has taken, as far as it matters
  logic [KEY_BITS:0] block_row[3];  // the first row of this block, of the one before and of that before it
  logic [ADDRESS_BITS-1:0] block_address;
  logic [KEY_BITS:0] next_row;
  logic last_cycle;
  logic last_key;
  logic last_row;
  logic last_row_leaves;  // known from the second cycle of a step on
  logic last_step;
  logic reads;
  logic last_word;
  logic has_slot;
  logic enters;
  logic leaves;
  logic out_busy;

  assign last_cycle = cycle == step_end;
  assign last_key = key == token_end;
  assign last_row = block_row[2] + {1'b0, key} == {1'b0, token_end};
  assign last_step = last_cycle && last_row_leaves;
  assign reads = running && cycle < STEP_BITS'(word_count);
  assign last_word = cycle == STEP_BITS'(word_count) - 1'b1;
  assign has_slot = key < row_count;
  assign enters = has_slot && block_row[0] + {1'b0, key} < {1'b0, token_count};
  assign leaves = has_slot && turns == 2'd2 && block_row[2] + {1'b0, key} < {1'b0, token_count};
  // Beyond the last row no further block begins.
  assign next_row = block_row[0] < {1'b0, token_count} ? block_row[0] + {1'b0, row_count} : block_row[0];

  assign head_done = draining && ce && !out_busy;
  assign done = head_done && heads_out == head_count - 1'b1;
  assign idle = !busy;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) busy <= 1'b0;
    else if (!busy) busy <= start;
    else if (done) busy <= 1'b0;

  always_ff @(posedge ap_clk)
    if (start && idle) begin
      head_count <= heads;
      token_count <= tokens;
      word_count <= words;
      row_count <= rows;
      token_stride <= stride;
      rows_stride <= block_stride;
      token_end <= tokens - 1'b1;
      step_end <= step - 1'b1;
      shift_of_scores <= score_shift;
      mixed_shift <= 6'(8'(MANTISSA_FRAC + LEAST_POSITION) + attention_shift);
    end

  always_ff @(posedge ap_clk)
    if (!busy) begin
      running   <= 1'b0;
      draining  <= 1'b0;
      heads_out <= '0;
    end else if (!running && !draining) begin
      running <= head_valid;
    end else if (running && ce && last_step) begin
      running  <= 1'b0;
      draining <= 1'b1;
    end else if (head_done) begin
      draining  <= 1'b0;
      heads_out <= heads_out + 1'b1;
    end

  always_ff @(posedge ap_clk)
    if (!running) begin
      cycle <= '0;
      key <= '0;
      first_address <= head_first;
      key_address <= head_first;
      turns <= '0;
      block_row[0] <= '0;
      block_row[1] <= '0;
      block_row[2] <= '0;
      block_address <= '0;
    end else if (ce) begin
      cycle <= last_cycle ? '0 : cycle + 1'b1;
      last_row_leaves <= leaves && last_row;
      if (last_cycle) begin
        key <= last_key ? '0 : key + 1'b1;
        key_address <= last_key ? first_address : key_address + token_stride;
        if (last_key) begin
          if (turns != 2'd2) turns <= turns + 1'b1;
          block_row[0] <= next_row;
          block_row[1] <= block_row[0];
          block_row[2] <= block_row[1];
          block_address <= block_address + rows_stride;
        end
      end
    end

  // What the later stages must know of a cycle.
  typedef struct packed {
    logic reads;
    logic last_word;
    logic has_slot;
    logic enters;
    logic leaves;
    logic [WORD_BITS-1:0] word;
    logic [KEY_BITS-1:0] key;
  } note_t;
  note_t note;
  assign note = {reads, last_word, has_slot, enters, leaves, WORD_BITS'(cycle), key};

  note_t at_1;
  edgemoe_delay #(.WIDTH($bits(note)), .CYCLES(READ)) note_1 (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(note),
      .out(at_1)
  );
  wire unused_1 = &{1'b0, at_1};

  note_t at_dot;
  edgemoe_delay #(.WIDTH($bits(note)), .CYCLES(DOT)) note_dot (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(note),
      .out(at_dot)
  );
  wire unused_dot = &{1'b0, at_dot};

  note_t at_score;
  edgemoe_delay #(.WIDTH($bits(note)), .CYCLES(SCORE)) note_score (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(note),
      .out(at_score)
  );
  wire unused_score = &{1'b0, at_score};

  note_t at_turn;
  edgemoe_delay #(.WIDTH($bits(note)), .CYCLES(DISTANCE)) note_turn (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(note),
      .out(at_turn)
  );
  wire unused_turn = &{1'b0, at_turn};

  note_t at_start;
  edgemoe_delay #(.WIDTH($bits(note)), .CYCLES(DISTANCE + 1)) note_start (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(note),
      .out(at_start)
  );
  wire unused_start = &{1'b0, at_start};

  note_t at_weight;
  edgemoe_delay #(.WIDTH($bits(note)), .CYCLES(DISTANCE + WEIGHT)) note_weight (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(note),
      .out(at_weight)
  );
  wire unused_weight = &{1'b0, at_weight};

  note_t at_sum;
  edgemoe_delay #(.WIDTH($bits(note)), .CYCLES(DISTANCE + WEIGHT + 1)) note_sum (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(note),
      .out(at_sum)
  );
  wire unused_sum = &{1'b0, at_sum};

  // ---- First turn: scores, one step a key, all rows at once.

  logic [LANES*Q_BITS-1:0] k_2;
  logic [LANES*Q_BITS-1:0] k_3;

  assign q_address = block_address + key_address + ADDRESS_BITS'(cycle);
  assign k_address = key_address + ADDRESS_BITS'(cycle);
  always_ff @(posedge ap_clk)
    if (ce) begin
      k_2 <= k;
      k_3 <= k_2;
    end

  // ---- Second turn: V follows K, as late as the weights do.

  logic [LANES*Q_BITS-1:0] value;

  edgemoe_delay #(.WIDTH(ADDRESS_BITS), .CYCLES(DISTANCE)) value_address_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(k_address),
      .out(v_address)
  );
  edgemoe_delay #(.WIDTH(LANES * Q_BITS), .CYCLES(WEIGHT - READ)) value_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(v),
      .out(value)
  );

  // ---- One slot for each row.

  logic [LANES*WEIGHTED_BITS-1:0] slot_weighted[SLOTS];
  logic [SUM_BITS-1:0] slot_sum[SLOTS];

  for (genvar slot = 0; slot < SLOTS; slot++) begin : g_slot
    localparam logic [KEY_BITS-1:0] SLOT = KEY_BITS'(slot);

    // The query, which comes in with the row's first key and is used at once.
    logic [LANES*Q_BITS-1:0] query[2**WORD_BITS];
    logic [LANES*Q_BITS-1:0] q_2;
    logic [LANES*Q_BITS-1:0] q_3;
    logic here_1;
    assign here_1 = at_1.enters && at_1.reads && at_1.key == SLOT;

    always_ff @(posedge ap_clk)
      if (ce) begin
        if (here_1) query[at_1.word] <= q;
        q_2 <= here_1 ? q : query[at_1.word];
        q_3 <= q_2;
      end

    // Its product with the key, word by word.
    logic [LANES*2*Q_BITS-1:0] products;
    logic signed [DOT_BITS-1:0] dot;
    logic signed [PRODUCT_BITS-1:0] product;
    logic signed [SCORE_BITS-1:0] score;

    for (genvar lane = 0; lane < LANES; lane++) begin : g_lane
      always_ff @(posedge ap_clk)
        if (ce)
          products[lane*2*Q_BITS+:2*Q_BITS] <=
              $signed(q_3[lane*Q_BITS+:Q_BITS]) * $signed(k_3[lane*Q_BITS+:Q_BITS]);
    end

    edgemoe_adder_tree #(.TERMS(LANES), .IN_BITS(2 * Q_BITS), .OUT_BITS(DOT_BITS)) tree (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(products),
        .out(dot)
    );

    always_ff @(posedge ap_clk)
      if (ce && at_dot.reads) product <= (at_dot.word == '0 ? '0 : product) + PRODUCT_BITS'(dot);

    edgemoe_round_saturate #(.VALUE_BITS(PRODUCT_BITS + SCORE_LIFT), .OUT_BITS(SCORE_BITS)) round_score (
        .ap_clk(ap_clk),
        .ce(ce),
        .value((PRODUCT_BITS + SCORE_LIFT)'(product) <<< SCORE_LIFT),
        .shift(shift_of_scores),
        .addend(1'b0),
        .out(score)
    );

    // The softmax of the row, whose last key is the one before its first.
    logic signed [MAXIMUM_BITS-1:0] maximum;
    logic [SUM_BITS-1:0] sum;
    logic row_ends;
    logic pass_valid;
    logic pass_last;
    logic unused_pass_busy;
    assign row_ends = at_score.key == (slot == 0 ? token_count - 1'b1 : SLOT - 1'b1);

    edgemoe_softmax_pass #(
        .SCORE_BITS(SCORE_BITS),
        .SCORE_FRAC(SCORE_FRAC),
        .MAXIMUM_BITS(MAXIMUM_BITS),
        .SUM_BITS(SUM_BITS),
        .EXP_BITS(WEIGHT_BITS),
        .EXP2(EXP2)
    ) pass (
        .ap_clk(ap_clk),
        .ap_rst_n(ap_rst_n),
        .ce(ce),
        .score(score),
        .valid(at_score.reads && at_score.last_word),
        .first(at_score.key == SLOT),
        .last(row_ends),
        .maximum(maximum),
        .sum(sum),
        .out_valid(pass_valid),
        .out_last(pass_last),
        .busy(unused_pass_busy)
    );

    logic signed [MAXIMUM_BITS-1:0] row_maximum;
    logic [SUM_BITS-1:0] row_sum;

    always_ff @(posedge ap_clk)
      if (ce && pass_valid && pass_last) begin
        row_maximum <= maximum;
        row_sum <= sum;
      end

    // The scores of the second turn are read as those of the first are written over them.
    logic signed [SCORE_BITS-1:0] scores[MAX_TOKENS];
    logic signed [SCORE_BITS-1:0] new_score;
    logic signed [SCORE_BITS-1:0] old_score;

    edgemoe_delay #(.WIDTH(SCORE_BITS), .CYCLES(DISTANCE - SCORE)) score_line (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(score),
        .out(new_score)
    );

    always_ff @(posedge ap_clk)
      if (ce) begin
        old_score <= scores[at_turn.key[SCORE_ADDRESS_BITS-1:0]];
        if (at_turn.reads && at_turn.last_word) scores[at_turn.key[SCORE_ADDRESS_BITS-1:0]] <= new_score;
      end

    // The weight of the key, the same for all words of its value. The maximum is as old as the score.
    logic [WEIGHT_BITS-1:0] weight;
    logic signed [MAXIMUM_BITS-1:0] old_maximum;
    logic signed [SCORE_BITS-1:0] held_score;
    logic [SCORE_BITS:0] difference;

    always_ff @(posedge ap_clk)
      if (ce) begin
        held_score <= old_score;
        old_maximum <= row_maximum;
        difference <= (SCORE_BITS + 1)'({old_maximum, {SCORE_FRAC{1'b0}}} - (MAXIMUM_BITS + SCORE_FRAC)'(held_score));
      end

    edgemoe_exp2_unit exp2 (
        .ap_clk(ap_clk),
        .ce(ce),
        .difference(difference),
        .exponential(weight)
    );

    // Weighted values, summed word by word; a row that begins its second turn finds those of the row before it.
    logic [LANES*WEIGHTED_BITS-1:0] weighted[2**WORD_BITS];
    logic [LANES*WEIGHTED_BITS-1:0] so_far;
    logic [LANES*WEIGHTED_BITS-1:0] summed;

    always_ff @(posedge ap_clk)
      if (ce) begin
        so_far <= weighted[at_weight.word];
        if (at_sum.reads) weighted[at_sum.word] <= summed;
      end

    for (genvar lane = 0; lane < LANES; lane++) begin : g_weigh
      logic signed [WEIGHT_BITS+Q_BITS:0] part;
      always_ff @(posedge ap_clk)
        if (ce) part <= $signed({1'b0, weight}) * $signed(value[lane*Q_BITS+:Q_BITS]);
      assign summed[lane*WEIGHTED_BITS+:WEIGHTED_BITS] =
          (at_sum.key == SLOT ? '0 : so_far[lane*WEIGHTED_BITS+:WEIGHTED_BITS]) + WEIGHTED_BITS'(part);
    end

    // The sum is needed once more, when the row leaves.
    logic [SUM_BITS-1:0] held_sum;

    always_ff @(posedge ap_clk)
      if (ce && at_start.reads && at_start.word == '0 && at_start.key == SLOT) held_sum <= row_sum;

    assign slot_weighted[slot] = so_far;
    assign slot_sum[slot] = held_sum;
  end

  // ---- Rows leave one after the other: the weighted sum, divided by the sum of the weights.

  localparam int SLOT_BITS = SLOTS > 1 ? $clog2(SLOTS) : 1;
  logic [SUM_BITS-1:0] leaving_sum;
  logic [LANES*WEIGHTED_BITS-1:0] leaving;
  logic [MANTISSA_BITS-1:0] mantissa;
  logic [5:0] position;
  logic [5:0] late_position;
  logic [MANTISSA_BITS-1:0] mantissa_aligned;
  logic [5:0] align;

  always_ff @(posedge ap_clk)
    if (ce) begin
      if (at_start.reads && at_start.word == '0 && at_start.has_slot)
        leaving_sum <= slot_sum[at_start.key[SLOT_BITS-1:0]];
      leaving <= slot_weighted[at_sum.key[SLOT_BITS-1:0]];
    end

  edgemoe_reciprocal_unit reciprocal (
      .ap_clk(ap_clk),
      .ce(ce),
      .value(64'(leaving_sum)),
      .mantissa(mantissa),
      .position(position)
  );
  // The weighted sum comes later than the reciprocal of the sum.
  edgemoe_delay #(.WIDTH(MANTISSA_BITS), .CYCLES(WEIGHT - MANTISSA + ROUND)) mantissa_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(mantissa),
      .out(mantissa_aligned)
  );
  edgemoe_delay #(.WIDTH(6), .CYCLES(WEIGHT - MANTISSA - 1)) position_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(position),
      .out(late_position)
  );
  // Reset keeps it out of a shift register, which would be slow to drive the shifters of all lanes.
  always_ff @(posedge ap_clk)
    if (!ap_rst_n) align <= '0;
    else if (ce) align <= late_position - 6'(LEAST_POSITION);

  for (genvar lane = 0; lane < LANES; lane++) begin : g_out
    logic signed [ALIGNED_BITS-1:0] aligned;
    logic signed [MIXED_BITS-1:0] divided;

    edgemoe_round_saturate #(.VALUE_BITS(WEIGHTED_BITS), .OUT_BITS(ALIGNED_BITS)) round_aligned (
        .ap_clk(ap_clk),
        .ce(ce),
        .value(leaving[lane*WEIGHTED_BITS+:WEIGHTED_BITS]),
        .shift(align),
        .addend(1'b0),
        .out(aligned)
    );

    edgemoe_product #(.A_BITS(ALIGNED_BITS), .B_BITS(MANTISSA_BITS + 1), .CYCLES(3)) divide (
        .ap_clk(ap_clk),
        .ce(ce),
        .a(aligned),
        .b({1'b0, mantissa_aligned}),
        .out(divided)
    );

    edgemoe_round_saturate #(.VALUE_BITS(MIXED_BITS), .OUT_BITS(OUT_BITS)) round_mixed (
        .ap_clk(ap_clk),
        .ce(ce),
        .value(divided),
        .shift(mixed_shift),
        .addend(1'b0),
        .out(mixed[lane*OUT_BITS+:OUT_BITS])
    );
  end

  logic [KEY_BITS-1:0] row;
  assign row = KEY_BITS'(block_row[2] + {1'b0, key});

  edgemoe_valid_delay #(.CYCLES(OUT)) out_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(ce),
      .in(reads && leaves),
      .out(out_valid),
      .any(out_busy)
  );
  edgemoe_delay #(.WIDTH(1 + KEY_BITS + WORD_BITS), .CYCLES(OUT)) out_note_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in({last_word && last_row, row, WORD_BITS'(cycle)}),
      .out({out_last, out_row, out_word})
  );

`ifndef SYNTHESIS
  // The reciprocal of a row's sum must be there when the row leaves.
  initial assert (WEIGHT > MANTISSA && READ <= WEIGHT);
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      if (start && idle) begin
        assume (heads != '0 && tokens != '0 && words != '0);
        /* verilator lint_off CMPCONST */
        assume (rows != '0 && 32'(rows) <= SLOTS && step >= STEP_BITS'(words) && step > 1);
        /* verilator lint_on CMPCONST */
      end
      assert (!(running && draining));
    end
`endif

endmodule
