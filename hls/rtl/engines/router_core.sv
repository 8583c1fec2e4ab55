// Router on memory ports: logits, top-k, softmax, and whose queue a token enters (Edge-MoE, section IV-E).
//
// Token after token: ROUTER_LANES experts at a time multiply its words with their gate weights; the logits then pass
// one by one through the choice of the best and through the softmax, over all experts or over the chosen ones. While
// a token is chosen for, the logits of the next are computed. Each choice is an entry: token and score at the next place of
// an expert's queue. `lengths` of the queues stay until the next start.
//
// Word x_word of token x_token is on `x` READ cycles after `x_enable`. A token takes `interval` cycles and is begun while
// `token_valid`, or behind another one while `next_token_valid`.
module edgemoe_router_core #(
    parameter int LANES = 4,
    parameter int ROUTER_LANES = 4,
    parameter int EXPERTS = 8,
    parameter int RANKS = 2,
    parameter int X_BITS = 16,
    parameter int W_BITS = 16,
    parameter int W_STORED = 16,
    parameter int SUM_BITS = 48,
    parameter int BIAS_BITS = 40,
    parameter int MULTIPLIER_BITS = 16,
    parameter bit MULTIPLIES = 1'b1,
    parameter int RECORD_BITS = 64,
    parameter int SHIFT_STORED = 8,
    parameter int SCORE_BITS = 24,
    parameter int SCORE_FRAC = 16,
    parameter int MAXIMUM_BITS = 9,
    parameter int EXP_SUM_BITS = 32,
    parameter int EXP_BITS = 23,
    parameter int MANTISSA_FRAC = 16,
    parameter int GATE_SCORE_BITS = 17,
    parameter int GATE_SCORE_FRAC = 16,
    parameter int BEAT_BITS = 256,
    parameter int RECORD_BEATS = 2,  // at most
    parameter int WORD_BEATS = 1,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 4,
    parameter int GROUP_BITS = 2,
    parameter int EXPERT_BITS = 4,
    parameter int RANK_BITS = 2,
    parameter int INTERVAL_BITS = 6,
    parameter int WEIGHT_DEPTH = 16,
    parameter int READ = 1,
    parameter int EXP2 = 4,  // cycles of the exponential
    parameter int MANTISSA = 5,  // cycles of the reciprocal
    parameter STYLE = "auto",
    localparam int RECORD_BEAT_BITS = $clog2(RECORD_BEATS + 1)
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    // Tokens to route, taken while idle; the gate comes by itself.
    input  logic start,
    output logic idle,
    output logic done,
    input  logic [TOKEN_BITS-1:0] tokens,
    input  logic [WORD_BITS-1:0] words,
    input  logic [EXPERT_BITS-1:0] experts,
    input  logic [GROUP_BITS-1:0] groups,
    input  logic [RANK_BITS-1:0] top_k,
    input  logic over_selected,
    input  logic [WORD_BITS-1:0] group_steps,
    input  logic [INTERVAL_BITS-1:0] interval,

    // A gate to load, taken while none is here.
    input  logic load_valid,
    output logic load_ready,
    input  logic [WORD_BITS-1:0] load_words,
    input  logic [GROUP_BITS-1:0] load_groups,
    input  logic [RECORD_BEAT_BITS-1:0] load_record_beats,
    input  logic beat_valid,
    output logic beat_ready,
    input  logic [BEAT_BITS-1:0] beat,
    output logic beat_last,

    input  logic token_valid,
    input  logic next_token_valid,
    output logic token_done,
    output logic x_enable,
    output logic [TOKEN_BITS-1:0] x_token,
    output logic [WORD_BITS-1:0] x_word,
    input  logic [LANES*X_BITS-1:0] x,

    output logic entry_valid,
    output logic [EXPERT_BITS-1:0] entry_expert,
    output logic [TOKEN_BITS-1:0] entry_place,
    output logic [TOKEN_BITS-1:0] entry_token,
    output logic [GATE_SCORE_BITS-1:0] entry_score,
    output logic [RANK_BITS-1:0] entry_rank,
    output logic [EXPERTS*TOKEN_BITS-1:0] lengths
);

  localparam int MANTISSA_BITS = MANTISSA_FRAC + 1;
  localparam int WEIGHT_ADDRESS_BITS = WEIGHT_DEPTH > 1 ? $clog2(WEIGHT_DEPTH) : 1;
  localparam int ROUND = 2;
  localparam int SUM = READ + 2 + $clog2(LANES);  // cycles from a word to the sum that it completes

  logic busy;
  logic [TOKEN_BITS-1:0] token_count;
  logic [WORD_BITS-1:0] word_count;
  logic [EXPERT_BITS-1:0] expert_count;
  logic [RANK_BITS-1:0] rank_count;
  logic chosen_only;
  // Numbers of the last ones.
  logic [TOKEN_BITS-1:0] token_end;
  logic [WORD_BITS-1:0] word_end;
  logic [EXPERT_BITS-1:0] expert_end;
  logic [GROUP_BITS-1:0] group_end;
  logic [RANK_BITS-1:0] rank_end;
  logic [WORD_BITS-1:0] step_end;
  logic [INTERVAL_BITS-1:0] cycle_end;

  assign idle = !busy;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) busy <= 1'b0;
    else if (!busy) busy <= start;
    else if (done) busy <= 1'b0;

  always_ff @(posedge ap_clk)
    if (start && idle) begin
      token_count <= tokens;
      word_count <= words;
      expert_count <= experts;
      rank_count <= top_k;
      chosen_only <= over_selected;
      token_end <= tokens - 1'b1;
      word_end <= words - 1'b1;
      expert_end <= experts - 1'b1;
      group_end <= groups - 1'b1;
      rank_end <= top_k - 1'b1;
      step_end <= group_steps - 1'b1;
      cycle_end <= interval - 1'b1;
    end

  // ---- The gate comes in: records of all experts, then a row of weights for every group and word.

  logic gate_loaded;
  logic loading;
  logic loading_records;
  logic taken;
  logic [WORD_BITS-1:0] load_word_end;
  logic [GROUP_BITS-1:0] load_group_end;
  logic [RECORD_BEAT_BITS-1:0] records_left;
  logic [RECORD_BEAT_BITS-1:0] record_place;
  logic [GROUP_BITS-1:0] load_group;
  logic [WORD_BITS-1:0] load_word;
  logic [WEIGHT_ADDRESS_BITS-1:0] load_address;
  logic [RECORD_BEATS*BEAT_BITS-1:0] records;
  logic [BEAT_BITS*WORD_BEATS-1:0] weight_row;
  logic [ROUTER_LANES*LANES*W_BITS-1:0] weight_lanes;
  logic row_complete;
  logic last_load_word;
  wire unused_rows = &{1'b0, weight_row, records};

  assign load_ready = !loading && !gate_loaded;
  assign beat_ready = loading;
  assign taken = beat_valid && beat_ready;
  assign loading_records = records_left != '0;
  assign last_load_word = load_word == load_word_end;
  assign beat_last = row_complete && last_load_word && load_group == load_group_end;

  edgemoe_collector #(.WIDTH(BEAT_BITS), .BEATS(WORD_BEATS)) weight_collector (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .beat(beat),
      .valid(taken && !loading_records),
      .restart(1'b0),
      .word(weight_row),
      .complete(row_complete)
  );

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      loading <= 1'b0;
      gate_loaded <= 1'b0;
      records_left <= '0;
    end else begin
      if (load_valid && load_ready) begin
        loading <= 1'b1;
        records_left <= load_record_beats;
      end else if (taken && loading_records) begin
        records_left <= records_left - 1'b1;
      end
      if (beat_last) loading <= 1'b0;
      if (beat_last) gate_loaded <= 1'b1;
      else if (done) gate_loaded <= 1'b0;
    end

  always_ff @(posedge ap_clk)
    if (load_valid && load_ready) begin
      load_word_end <= load_words - 1'b1;
      load_group_end <= load_groups - 1'b1;
      record_place <= '0;
      load_group <= '0;
      load_word <= '0;
      load_address <= '0;
    end else begin
      if (taken && loading_records) record_place <= record_place + 1'b1;
      if (row_complete) begin
        load_address <= load_address + 1'b1;
        load_word <= last_load_word ? '0 : load_word + 1'b1;
        if (last_load_word) load_group <= load_group + 1'b1;
      end
    end

  for (genvar i = 0; i < RECORD_BEATS; i++) begin : g_records
    always_ff @(posedge ap_clk)
      if (taken && loading_records && record_place == RECORD_BEAT_BITS'(i)) records[i*BEAT_BITS+:BEAT_BITS] <= beat;
  end
  for (genvar i = 0; i < ROUTER_LANES * LANES; i++) begin : g_weight
    assign weight_lanes[i*W_BITS+:W_BITS] = weight_row[i*W_STORED+:W_BITS];
  end

  // ---- Logits: all groups of experts, word after word. A token takes `interval` cycles.

  logic running;
  logic [INTERVAL_BITS-1:0] cycle;
  logic [GROUP_BITS-1:0] group;
  logic [WORD_BITS-1:0] step;
  logic [WEIGHT_ADDRESS_BITS-1:0] weight_address;
  logic [TOKEN_BITS-1:0] token;
  logic groups_done;
  logic last_step;

  assign x_enable = running && !groups_done && step < word_count;
  assign x_token = token;
  assign x_word = step;
  assign last_step = step == step_end;
  assign token_done = running && cycle == cycle_end;

  always_ff @(posedge ap_clk)
    if (!busy) begin
      running <= 1'b0;
      token   <= '0;
    end else if (!running) begin
      running <= gate_loaded && token_valid && token != token_count;
    end else if (token_done) begin
      // The next token follows at once if it may be read.
      running <= next_token_valid && token != token_end;
      token   <= token + 1'b1;
    end

  always_ff @(posedge ap_clk)
    if (!running || token_done) begin
      cycle <= '0;
      group <= '0;
      step <= '0;
      weight_address <= '0;
      groups_done <= 1'b0;
    end else begin
      cycle <= cycle + 1'b1;
      if (!groups_done) begin
        step <= last_step ? '0 : step + 1'b1;
        if (x_enable) weight_address <= weight_address + 1'b1;
        if (last_step) group <= group + 1'b1;
        if (last_step && group == group_end) groups_done <= 1'b1;
      end
    end

  logic [ROUTER_LANES*LANES*W_BITS-1:0] row_weights;

  edgemoe_memory #(.WIDTH(ROUTER_LANES * LANES * W_BITS), .DEPTH(WEIGHT_DEPTH), .LATENCY(READ), .STYLE(STYLE)) weights (
      .ap_clk(ap_clk),
      .write_enable(row_complete),
      .write_address(load_address),
      .write_data(weight_lanes),
      .ce(1'b1),
      .read_address(weight_address),
      .read_data(row_weights)
  );

  logic adds;
  logic adds_first;
  logic adds_last;
  logic sum_busy;
  logic [GROUP_BITS-1:0] sum_group;
  logic [TOKEN_BITS-1:0] sum_token;

  edgemoe_valid_delay #(.CYCLES(SUM)) adds_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(x_enable),
      .out(adds),
      .any(sum_busy)
  );
  edgemoe_delay #(.WIDTH(2 + GROUP_BITS + TOKEN_BITS), .CYCLES(SUM)) sum_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in({step == '0, step == word_end, group, token}),
      .out({adds_first, adds_last, sum_group, sum_token})
  );

  localparam int DOT_BITS = X_BITS + W_BITS + $clog2(LANES);
  logic [ROUTER_LANES*SUM_BITS-1:0] sums_now;

  for (genvar i = 0; i < ROUTER_LANES; i++) begin : g_expert
    logic signed [DOT_BITS-1:0] dot;
    logic signed [SUM_BITS-1:0] sum;
    logic signed [BIAS_BITS-1:0] bias;
    wire unused_bias = &{1'b0, bias};

    edgemoe_dot #(.LANES(LANES), .X_BITS(X_BITS), .W_BITS(W_BITS), .DOT_BITS(DOT_BITS)) dot_product (
        .ap_clk(ap_clk),
        .ce(1'b1),
        .x(x),
        .weights(row_weights[i*LANES*W_BITS+:LANES*W_BITS]),
        .dots(dot)
    );
    assign bias = records[(32'(sum_group)*ROUTER_LANES+i)*RECORD_BITS+:BIAS_BITS];
    assign sums_now[i*SUM_BITS+:SUM_BITS] = (adds_first ? SUM_BITS'(bias) : sum) + SUM_BITS'(dot);
    always_ff @(posedge ap_clk) if (adds) sum <= sums_now[i*SUM_BITS+:SUM_BITS];
  end

  // ---- The experts of a group, one a cycle: requantised to a logit.

  logic serial_valid;
  logic [$clog2(ROUTER_LANES)-1:0] serial_lane;
  logic [GROUP_BITS-1:0] serial_group;
  logic [TOKEN_BITS-1:0] serial_token;
  logic [ROUTER_LANES*SUM_BITS-1:0] serial_sums;
  logic [GROUP_BITS+$clog2(ROUTER_LANES)-1:0] serial_expert;
  logic serial_counts;

  assign serial_expert = {serial_group, serial_lane};
  assign serial_counts = serial_valid && serial_expert < (GROUP_BITS + $clog2(ROUTER_LANES))'(expert_count);

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      serial_valid <= 1'b0;
    end else if (adds && adds_last) begin
      serial_valid <= 1'b1;
    end else if (serial_lane == '1) begin
      serial_valid <= 1'b0;
    end

  always_ff @(posedge ap_clk)
    if (adds && adds_last) begin
      serial_lane  <= '0;
      serial_group <= sum_group;
      serial_token <= sum_token;
      serial_sums  <= sums_now;
    end else begin
      serial_lane <= serial_lane + 1'b1;
      serial_sums <= serial_sums >> SUM_BITS;
    end

  // Its sum and its record first, each chosen from many; then the product.
  localparam int REQUANTISE = 3 + ROUND;
  logic signed [SUM_BITS-1:0] sum_1;
  logic [RECORD_BITS-1:0] record_1;
  logic signed [63:0] scaled;
  logic [5:0] scaled_shift;
  logic signed [SCORE_BITS-1:0] logit;
  logic logit_valid;
  logic logit_busy;
  logic [EXPERT_BITS-1:0] logit_expert;
  logic [TOKEN_BITS-1:0] logit_token;

  wire unused_record = &{1'b0, record_1};

  always_ff @(posedge ap_clk) begin
    sum_1 <= serial_sums[SUM_BITS-1:0];
    record_1 <= records[32'(serial_expert)*RECORD_BITS+:RECORD_BITS];
  end

  // Without multipliers all are 1.
  if (MULTIPLIES) begin : g_multiplied
    logic signed [SUM_BITS+MULTIPLIER_BITS:0] product;
    wire unused_product = &{1'b0, product};
    edgemoe_product #(.A_BITS(SUM_BITS), .B_BITS(MULTIPLIER_BITS + 1), .CYCLES(2)) by_multiplier (
        .ap_clk(ap_clk),
        .ce(1'b1),
        .a(sum_1),
        .b({1'b0, record_1[BIAS_BITS+:MULTIPLIER_BITS]}),
        .out(product)
    );
    assign scaled = 64'(product);
  end else begin : g_plain
    logic signed [SUM_BITS-1:0] sum_3;
    edgemoe_delay #(.WIDTH(SUM_BITS), .CYCLES(2)) plain_line (
        .ap_clk(ap_clk),
        .ce(1'b1),
        .in(sum_1),
        .out(sum_3)
    );
    assign scaled = 64'(sum_3);
  end

  edgemoe_delay #(.WIDTH(6), .CYCLES(2)) shift_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in(record_1[RECORD_BITS-SHIFT_STORED+:6]),
      .out(scaled_shift)
  );

  edgemoe_round_saturate #(.VALUE_BITS(64), .OUT_BITS(SCORE_BITS)) round_logit (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .value(scaled),
      .shift(scaled_shift),
      .addend(1'b0),
      .out(logit)
  );
  edgemoe_valid_delay #(.CYCLES(REQUANTISE)) logit_valid_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(serial_counts),
      .out(logit_valid),
      .any(logit_busy)
  );
  edgemoe_delay #(.WIDTH(EXPERT_BITS + TOKEN_BITS), .CYCLES(REQUANTISE)) logit_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in({serial_expert[EXPERT_BITS-1:0], serial_token}),
      .out({logit_expert, logit_token})
  );

  // ---- Choice: the best so far, best first. Strictly greater: of equal logits the expert that came first stays.

  logic logit_first;
  logic logit_last;
  logic [RANKS*SCORE_BITS-1:0] best_logits;
  logic [RANKS*EXPERT_BITS-1:0] best_experts;
  logic [RANKS*SCORE_BITS-1:0] better_logits;
  logic [RANKS*EXPERT_BITS-1:0] better_experts;
  logic [RANKS:0] placed;

  assign logit_first = logit_expert == '0;
  assign logit_last = logit_expert == expert_end;
  assign placed[0] = 1'b0;

  for (genvar rank = 0; rank < RANKS; rank++) begin : g_rank
    // Experts come in ascending order: so many ranks are taken.
    logic here;
    assign here = EXPERT_BITS'(rank) >= logit_expert || logit > $signed(best_logits[rank*SCORE_BITS+:SCORE_BITS]);
    assign placed[rank+1] = placed[rank] || here;

    if (rank == 0) begin : g_best
      assign better_logits[0+:SCORE_BITS] = here ? logit : best_logits[0+:SCORE_BITS];
      assign better_experts[0+:EXPERT_BITS] = here ? logit_expert : best_experts[0+:EXPERT_BITS];
    end else begin : g_next
      assign better_logits[rank*SCORE_BITS+:SCORE_BITS] = placed[rank] ? best_logits[(rank-1)*SCORE_BITS+:SCORE_BITS]
          : here ? logit : best_logits[rank*SCORE_BITS+:SCORE_BITS];
      assign better_experts[rank*EXPERT_BITS+:EXPERT_BITS] = placed[rank] ? best_experts[(rank-1)*EXPERT_BITS+:EXPERT_BITS]
          : here ? logit_expert : best_experts[rank*EXPERT_BITS+:EXPERT_BITS];
    end
  end
  wire unused_placed = &{1'b0, placed[RANKS]};

  always_ff @(posedge ap_clk)
    if (logit_valid) begin
      best_logits  <= better_logits;
      best_experts <= better_experts;
    end

  // What was chosen stays until its scores are made; it also passes through the softmax, if that is over the chosen.
  logic chosen_valid;
  logic [RANK_BITS-1:0] chosen_rank;
  logic [RANKS*SCORE_BITS-1:0] chosen_logits;
  logic [RANKS*EXPERT_BITS-1:0] chosen_experts;
  logic [TOKEN_BITS-1:0] chosen_token;
  logic [RANKS*SCORE_BITS-1:0] serial_logits;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      chosen_valid <= 1'b0;
    end else if (logit_valid && logit_last) begin
      chosen_valid <= 1'b1;
    end else if (chosen_rank == rank_end) begin
      chosen_valid <= 1'b0;
    end

  always_ff @(posedge ap_clk)
    if (logit_valid && logit_last) begin
      chosen_rank <= '0;
      chosen_logits <= better_logits;
      chosen_experts <= better_experts;
      chosen_token <= logit_token;
      serial_logits <= better_logits;
    end else begin
      chosen_rank   <= chosen_rank + 1'b1;
      serial_logits <= serial_logits >> SCORE_BITS;
    end

  logic signed [MAXIMUM_BITS-1:0] maximum;
  logic [EXP_SUM_BITS-1:0] exp_sum;
  logic pass_valid;
  logic pass_last;
  logic pass_busy;

  edgemoe_softmax_pass #(
      .SCORE_BITS(SCORE_BITS),
      .SCORE_FRAC(SCORE_FRAC),
      .MAXIMUM_BITS(MAXIMUM_BITS),
      .SUM_BITS(EXP_SUM_BITS),
      .EXP_BITS(EXP_BITS),
      .EXP2(EXP2)
  ) pass (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .score(chosen_only ? $signed(serial_logits[SCORE_BITS-1:0]) : logit),
      .valid(chosen_only ? chosen_valid : logit_valid),
      .first(chosen_only ? chosen_rank == '0 : logit_first),
      .last(chosen_only ? chosen_rank == rank_end : logit_last),
      .maximum(maximum),
      .sum(exp_sum),
      .out_valid(pass_valid),
      .out_last(pass_last),
      .busy(pass_busy)
  );

  logic [MANTISSA_BITS-1:0] mantissa;
  logic [5:0] position;
  logic inverse_valid;
  logic inverse_busy;
  logic signed [MAXIMUM_BITS-1:0] inverse_maximum;

  edgemoe_reciprocal_unit reciprocal (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .value(64'(exp_sum)),
      .mantissa(mantissa),
      .position(position)
  );
  edgemoe_valid_delay #(.CYCLES(MANTISSA)) inverse_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(pass_valid && pass_last),
      .out(inverse_valid),
      .any(inverse_busy)
  );
  edgemoe_delay #(.WIDTH(MAXIMUM_BITS), .CYCLES(MANTISSA)) maximum_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in(maximum),
      .out(inverse_maximum)
  );

  // ---- Scores of the chosen, one a cycle.

  logic scoring;
  logic [RANK_BITS-1:0] score_rank;
  logic [RANKS*SCORE_BITS-1:0] score_logits;
  logic [RANKS*EXPERT_BITS-1:0] score_experts;
  logic signed [MAXIMUM_BITS-1:0] score_maximum;
  logic [MANTISSA_BITS-1:0] score_mantissa;
  logic [5:0] score_position;
  logic [SCORE_BITS:0] difference;

  always_ff @(posedge ap_clk)
    difference <= (SCORE_BITS + 1)'({score_maximum, {SCORE_FRAC{1'b0}}}
        - (MAXIMUM_BITS + SCORE_FRAC)'($signed(score_logits[SCORE_BITS-1:0])));

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) scoring <= 1'b0;
    else if (inverse_valid) scoring <= 1'b1;
    else if (score_rank == rank_end) scoring <= 1'b0;

  always_ff @(posedge ap_clk)
    if (inverse_valid) begin
      score_rank <= '0;
      score_logits <= chosen_logits;
      score_experts <= chosen_experts;
      score_maximum <= inverse_maximum;
      score_mantissa <= mantissa;
      score_position <= position;
    end else begin
      score_rank <= score_rank + 1'b1;
      score_logits <= score_logits >> SCORE_BITS;
      score_experts <= score_experts >> EXPERT_BITS;
    end

  localparam int WEIGHED_BITS = EXP_BITS + MANTISSA_BITS + 2;
  localparam int SCORE = 1 + EXP2 + 2 + ROUND;  // distance, exponential, product, rounding
  logic [EXP_BITS-1:0] exponential;
  logic [MANTISSA_BITS-1:0] weigh_mantissa;
  logic [5:0] weigh_position;
  logic [5:0] late_position;
  logic signed [WEIGHED_BITS-1:0] weighed;
  logic [5:0] weighed_shift;
  logic signed [GATE_SCORE_BITS+1:0] rounded;
  logic entry_busy;

  edgemoe_exp2_unit exp2 (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .difference(difference),
      .exponential(exponential)
  );
  edgemoe_delay #(.WIDTH(MANTISSA_BITS + 6), .CYCLES(EXP2 + 1)) weigh_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in({score_mantissa, score_position}),
      .out({weigh_mantissa, weigh_position})
  );

  edgemoe_product #(.A_BITS(EXP_BITS + 1), .B_BITS(MANTISSA_BITS + 1), .CYCLES(2)) weigh (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .a({1'b0, exponential}),
      .b({1'b0, weigh_mantissa}),
      .out(weighed)
  );
  edgemoe_delay #(.WIDTH(6), .CYCLES(1)) weigh_position_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in(weigh_position),
      .out(late_position)
  );
  always_ff @(posedge ap_clk) weighed_shift <= 6'(MANTISSA_FRAC - GATE_SCORE_FRAC) + late_position;

  // A score is at most 1, which needs a bit of its own.
  edgemoe_round_saturate #(.VALUE_BITS(WEIGHED_BITS), .OUT_BITS(GATE_SCORE_BITS + 2)) round_score (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .value(weighed),
      .shift(weighed_shift),
      .addend(1'b0),
      .out(rounded)
  );
  assign entry_score = rounded > (GATE_SCORE_BITS + 2)'(2 ** GATE_SCORE_FRAC) ? GATE_SCORE_BITS'(2 ** GATE_SCORE_FRAC)
      : GATE_SCORE_BITS'($unsigned(rounded));

  edgemoe_valid_delay #(.CYCLES(SCORE)) entry_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(scoring),
      .out(entry_valid),
      .any(entry_busy)
  );
  edgemoe_delay #(.WIDTH(TOKEN_BITS + EXPERT_BITS + RANK_BITS), .CYCLES(SCORE)) entry_note_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in({chosen_token, score_experts[EXPERT_BITS-1:0], score_rank}),
      .out({entry_token, entry_expert, entry_rank})
  );
  wire unused_busy = &{1'b0, sum_busy, logit_busy, pass_busy, inverse_busy, entry_busy, chosen_token};

  // ---- Queues: how long each is so far.

  logic [TOKEN_BITS+RANK_BITS-1:0] entries;
  logic [TOKEN_BITS+RANK_BITS-1:0] entries_wanted;  // of all tokens, one for each of their ranks
  logic [TOKEN_BITS+RANK_BITS-1:0] entries_end;

  assign entry_place = lengths[32'(entry_expert)*TOKEN_BITS+:TOKEN_BITS];
  assign done = busy && entry_valid && entries == entries_end;

  always_ff @(posedge ap_clk) begin
    entries_wanted <= token_count * rank_count;
    entries_end <= entries_wanted - 1'b1;
  end

  always_ff @(posedge ap_clk)
    if (start && idle) begin
      lengths <= '0;
      entries <= '0;
    end else if (entry_valid) begin
      lengths[32'(entry_expert)*TOKEN_BITS+:TOKEN_BITS] <= entry_place + 1'b1;
      entries <= entries + 1'b1;
    end

`ifndef SYNTHESIS
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      if (start && idle) begin
        assume (tokens != '0 && words != '0 && groups != '0);
        /* verilator lint_off CMPCONST */
        assume (experts != '0 && 32'(experts) <= EXPERTS && top_k != '0 && 32'(top_k) <= RANKS);
        /* verilator lint_on CMPCONST */
      end
      /* verilator lint_off CMPCONST */
      if (entry_valid) assert (busy && 32'(entry_expert) < EXPERTS);
      /* verilator lint_on CMPCONST */
    end
`endif

endmodule
