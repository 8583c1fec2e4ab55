// LayerNorm from exact integer sums, on memory ports: a word of channels a cycle in and, `lag` tokens later, a word out.
//
//   V = D * sum(x * x) - sum(x)**2 + epsilon;  n = (D * x - sum(x)) / sqrt(V);  y = (n * gamma + beta) >> shift
//
// `ce` halts everything but the loading of parameters. Word x_word of token x_token is on `x` X_LATENCY cycles after `x_enable`. gamma
// and beta come in the beats of the weight image, into one of PLACES places: with two, those of the next norm can
// come while this one runs. Each result leaves twice: as the linear engine's operand and, with more of its fraction, as the
// router's.
module edgemoe_norm_core #(
    parameter int LANES = 4,
    parameter int X_BITS = 24,
    parameter int DIM_BITS = 8,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 4,
    parameter int LAG_BITS = 6,
    parameter int X_LATENCY = 0,
    parameter int PLACES = 1,
    parameter int MANTISSA_FRAC = 16,
    parameter int MANTISSA = 5,  // cycles of the reciprocal square root
    parameter int NORMALIZED_BITS = 24,
    parameter int NORMALIZED_FRAC = 16,
    parameter int GAMMA_BITS = 16,
    parameter int BETA_BITS = 48,
    parameter int OPERAND_BITS = 8,
    parameter int GATE_BITS = 16,
    parameter int RECORD_STORED = 64,
    parameter int BEAT_BITS = 64,
    parameter int WORD_BEATS = 8,
    parameter int SLOT_BITS = 6,  // of a token that waits
    parameter int WAIT_BITS = 6,  // of a word of such a token
    localparam int NORMALISE = 13  // cycles from a word that has waited to its result
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic ce,

    // A norm to compute, taken while idle; its parameters come by themselves, in the same order.
    input  logic start,
    output logic idle,
    output logic done,
    input  logic [TOKEN_BITS-1:0] tokens,
    input  logic [DIM_BITS-1:0] dim,
    input  logic [WORD_BITS-1:0] words,
    input  logic [LAG_BITS-1:0] lag,
    input  logic [63:0] epsilon,
    input  logic [5:0] shift,
    input  logic [5:0] gate_shift,

    // Parameters to load, taken while no others are on their way in.
    input  logic load_valid,
    output logic load_ready,
    input  logic [WORD_BITS-1:0] load_words,
    input  logic beat_valid,
    output logic beat_ready,
    input  logic [BEAT_BITS-1:0] beat,
    output logic beat_last,

    output logic x_enable,
    output logic [TOKEN_BITS-1:0] x_token,
    output logic [WORD_BITS-1:0] x_word,
    output logic x_last,
    input  logic [LANES*X_BITS-1:0] x,

    output logic out_valid,
    output logic [TOKEN_BITS-1:0] out_token,
    output logic [WORD_BITS-1:0] out_word,
    output logic out_last,
    output logic [LANES*OPERAND_BITS-1:0] operands,
    output logic [LANES*GATE_BITS-1:0] gate_operands
);

  localparam int TOTAL_BITS = X_BITS + DIM_BITS;
  localparam int MANTISSA_BITS = MANTISSA_FRAC + 1;
  localparam int CENTRED_BITS = TOTAL_BITS + 1;
  localparam int PRODUCT_BITS = CENTRED_BITS + MANTISSA_BITS + 1;
  localparam int WIDE_BITS = BETA_BITS + 1;
  localparam int PAIR_BITS = GAMMA_BITS + BETA_BITS;
  localparam int SQUARE_BITS = 2 * X_BITS + DIM_BITS;  // of a token's sum, signed
  localparam int ROUND = 2;  // cycles of a rounding
  localparam int LONG = 4;  // of a product of up to eight pieces

  // ---- Parameters: gamma and beta take turns, a field each.

  logic load_place;
  logic place;
  logic loading;
  logic [1:0] place_full;
  logic [WORD_BITS-1:0] load_end;  // number of the last word
  logic [WORD_BITS-1:0] load_word;
  logic [BEAT_BITS*WORD_BEATS-1:0] parameter_word;
  logic parameter_complete;
  logic loaded;
  logic [LANES*PAIR_BITS-1:0] packed_parameters;
  logic [LANES*PAIR_BITS-1:0] parameter_memory[PLACES*2**WORD_BITS];
  wire unused_parameters = &{1'b0, parameter_word};

  assign load_ready = !loading && !place_full[load_place];
  assign beat_ready = loading;
  assign beat_last = parameter_complete && load_word == load_end;
  assign loaded = beat_last && beat_valid && beat_ready;

  edgemoe_collector #(.WIDTH(BEAT_BITS), .BEATS(WORD_BEATS)) parameter_collector (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .beat(beat),
      .valid(beat_valid && beat_ready),
      .restart(1'b0),
      .word(parameter_word),
      .complete(parameter_complete)
  );

  for (genvar lane = 0; lane < LANES; lane++) begin : g_pack
    assign packed_parameters[lane*PAIR_BITS+:PAIR_BITS] =
        {parameter_word[(2*lane+1)*RECORD_STORED+:BETA_BITS], parameter_word[2*lane*RECORD_STORED+:GAMMA_BITS]};
  end

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      loading <= 1'b0;
      load_place <= 1'b0;
      place <= 1'b0;
      place_full <= '0;
    end else begin
      if (load_valid && load_ready) loading <= 1'b1;
      else if (loaded) loading <= 1'b0;
      if (loaded && PLACES == 2) load_place <= !load_place;
      if (done && PLACES == 2) place <= !place;
      place_full <= (place_full & ~(done ? 2'b01 << place : 2'b00)) | (loaded ? 2'b01 << load_place : 2'b00);
    end

  always_ff @(posedge ap_clk) begin
    if (load_valid && load_ready) begin
      load_end  <= load_words - 1'b1;
      load_word <= '0;
    end else if (parameter_complete) begin
      load_word <= load_word + 1'b1;
    end
  end

  if (PLACES == 1) begin : g_one_place
    always_ff @(posedge ap_clk) if (parameter_complete) parameter_memory[load_word] <= packed_parameters;
  end else begin : g_two_places
    always_ff @(posedge ap_clk) if (parameter_complete) parameter_memory[{load_place, load_word}] <= packed_parameters;
  end

  // ---- Control: all tokens, and as many tokens more as they lag behind.

  logic waiting_to_run;
  logic running;
  logic draining;
  logic [TOKEN_BITS-1:0] token_count;
  logic [TOKEN_BITS-1:0] last_taken;  // token
  logic [TOKEN_BITS:0] last_given;  // token, counted as those that come in
  logic [DIM_BITS-1:0] channels;
  logic [WORD_BITS-1:0] word_end;  // number of a token's last word
  logic [LAG_BITS-1:0] lag_count;
  logic [63:0] smallest;
  logic [5:0] operand_shift;
  logic [5:0] gate_operand_shift;
  logic [TOKEN_BITS:0] token;
  logic [WORD_BITS-1:0] word;
  logic last_word;
  logic giving;
  logic last_step;
  logic out_busy;

  assign idle = !waiting_to_run && !running && !draining;
  assign done = draining && !out_busy;
  assign last_word = word == word_end;
  assign last_step = last_word && token == last_given;
  assign x_enable = running && token < {1'b0, token_count};
  assign x_token = token[TOKEN_BITS-1:0];
  assign x_word = word;
  assign x_last = last_word && token == {1'b0, last_taken};
  assign giving = running && token >= (TOKEN_BITS + 1)'(lag_count);

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      waiting_to_run <= 1'b0;
      running <= 1'b0;
      draining <= 1'b0;
    end else begin
      if (idle) waiting_to_run <= start;
      else if (place_full[place] || loaded) waiting_to_run <= 1'b0;
      if (waiting_to_run && (place_full[place] || loaded)) running <= 1'b1;
      else if (ce && last_step) running <= 1'b0;
      if (running && ce && last_step) draining <= 1'b1;
      else if (done) draining <= 1'b0;
    end

  always_ff @(posedge ap_clk)
    if (idle) begin
      token <= '0;
      word <= '0;
      token_count <= tokens;
      last_taken <= tokens - 1'b1;
      last_given <= {1'b0, tokens} + (TOKEN_BITS + 1)'(lag) - 1'b1;
      channels <= dim;
      word_end <= words - 1'b1;
      lag_count <= lag;
      smallest <= epsilon;
      operand_shift <= shift;
      gate_operand_shift <= gate_shift;
    end else if (running && ce) begin
      word <= last_word ? '0 : word + 1'b1;
      if (last_word) token <= token + 1'b1;
    end

  // ---- The words as they come.

  logic takes;
  logic takes_first;
  logic takes_last;
  logic unused_takes_busy;

  edgemoe_valid_delay #(.CYCLES(X_LATENCY)) takes_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(ce),
      .in(x_enable),
      .out(takes),
      .any(unused_takes_busy)
  );
  edgemoe_delay #(.WIDTH(2), .CYCLES(X_LATENCY)) takes_ends (
      .ap_clk(ap_clk),
      .ce(ce),
      .in({word == '0, last_word}),
      .out({takes_first, takes_last})
  );

  // ---- Sums of a token: total and squares, exact.

  localparam int TREE = $clog2(LANES);
  localparam int SQUARE = X_BITS > 27 ? 3 : 2;  // cycles of a square: of two pieces, or of four
  logic [LANES*X_BITS-1:0] x_1;
  logic [LANES*X_BITS-1:0] x_beside;
  logic [LANES*2*X_BITS-1:0] squares_word;
  logic signed [TOTAL_BITS-1:0] word_total;
  logic signed [SQUARE_BITS-1:0] word_squares;
  logic sum_first;
  logic sum_last;
  logic sum_valid;
  logic unused_sum_busy;
  logic signed [TOTAL_BITS-1:0] total;
  logic signed [SQUARE_BITS-1:0] squares;
  logic sums_done;

  for (genvar lane = 0; lane < LANES; lane++) begin : g_square
    edgemoe_product #(.A_BITS(X_BITS), .B_BITS(X_BITS), .CYCLES(SQUARE)) square (
        .ap_clk(ap_clk),
        .ce(ce),
        .a(x_1[lane*X_BITS+:X_BITS]),
        .b(x_1[lane*X_BITS+:X_BITS]),
        .out(squares_word[lane*2*X_BITS+:2*X_BITS])
    );
  end

  always_ff @(posedge ap_clk) if (ce) x_1 <= x;

  edgemoe_delay #(.WIDTH(LANES * X_BITS), .CYCLES(SQUARE)) x_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(x_1),
      .out(x_beside)
  );

  edgemoe_adder_tree #(.TERMS(LANES), .IN_BITS(X_BITS), .OUT_BITS(TOTAL_BITS)) total_tree (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(x_beside),
      .out(word_total)
  );
  edgemoe_adder_tree #(.TERMS(LANES), .IN_BITS(2 * X_BITS), .OUT_BITS(SQUARE_BITS)) square_tree (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(squares_word),
      .out(word_squares)
  );
  edgemoe_valid_delay #(.CYCLES(1 + SQUARE + TREE)) sum_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(ce),
      .in(takes),
      .out(sum_valid),
      .any(unused_sum_busy)
  );
  edgemoe_delay #(.WIDTH(2), .CYCLES(1 + SQUARE + TREE)) sum_ends (
      .ap_clk(ap_clk),
      .ce(ce),
      .in({takes_first, takes_last}),
      .out({sum_first, sum_last})
  );

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) sums_done <= 1'b0;
    else if (ce) sums_done <= sum_valid && sum_last;

  always_ff @(posedge ap_clk)
    if (ce && sum_valid) begin
      total   <= (sum_first ? '0 : total) + word_total;
      squares <= (sum_first ? '0 : squares) + word_squares;
    end

  // ---- Statistics of a token. Modulo 2**64: V itself fits, even where one of its two terms does not.

  localparam int SCALED_BITS = SQUARE_BITS + DIM_BITS + 1;
  logic signed [SCALED_BITS-1:0] scaled_squares;
  logic signed [2*TOTAL_BITS-1:0] squared_total;
  wire unused_squares = &{1'b0, scaled_squares, squared_total};
  logic [63:0] spread;
  logic [MANTISSA_BITS-1:0] mantissa;
  logic [5:0] position;
  logic signed [TOTAL_BITS-1:0] statistics_total;
  logic statistics_valid;
  logic unused_statistics_busy;

  edgemoe_product #(.A_BITS(SQUARE_BITS), .B_BITS(DIM_BITS + 1), .CYCLES(LONG)) scale_squares (
      .ap_clk(ap_clk),
      .ce(ce),
      .a(squares),
      .b({1'b0, channels}),
      .out(scaled_squares)
  );
  edgemoe_product #(.A_BITS(TOTAL_BITS), .B_BITS(TOTAL_BITS), .CYCLES(LONG)) square_total (
      .ap_clk(ap_clk),
      .ce(ce),
      .a(total),
      .b(total),
      .out(squared_total)
  );
  always_ff @(posedge ap_clk) if (ce) spread <= 64'(scaled_squares) - 64'(squared_total) + smallest;

  edgemoe_rsqrt_unit rsqrt (
      .ap_clk(ap_clk),
      .ce(ce),
      .value(spread),
      .mantissa(mantissa),
      .position(position)
  );
  edgemoe_delay #(.WIDTH(TOTAL_BITS), .CYCLES(LONG + 1 + MANTISSA)) total_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(total),
      .out(statistics_total)
  );
  edgemoe_valid_delay #(.CYCLES(LONG + 1 + MANTISSA)) statistics_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(ce),
      .in(sums_done),
      .out(statistics_valid),
      .any(unused_statistics_busy)
  );

  // Of the tokens whose turn to be normalised has not come: in order, as the turns are.
  logic [TOTAL_BITS+MANTISSA_BITS+6-1:0] statistics[2**SLOT_BITS];
  logic [SLOT_BITS-1:0] newest;
  logic [SLOT_BITS-1:0] oldest;

  always_ff @(posedge ap_clk)
    if (idle) begin
      newest <= '0;
      oldest <= '0;
    end else if (ce) begin
      if (statistics_valid) newest <= newest + 1'b1;
      if (giving && last_word) oldest <= oldest + 1'b1;
    end

  always_ff @(posedge ap_clk) if (ce && statistics_valid) statistics[newest] <= {statistics_total, mantissa, position};

  // ---- Tokens wait for their statistics.

  logic [LANES*X_BITS-1:0] waiting[2**WAIT_BITS];
  logic [WAIT_BITS-1:0] put;
  logic [WAIT_BITS-1:0] get;

  always_ff @(posedge ap_clk)
    if (idle) begin
      put <= '0;
      get <= '0;
    end else if (ce) begin
      if (takes) put <= put + 1'b1;
      if (giving) get <= get + 1'b1;
    end

  always_ff @(posedge ap_clk) if (ce && takes) waiting[put] <= x;

  // ---- Normalisation.

  // What the memories give is registered once more before it is multiplied.
  logic [LANES*X_BITS-1:0] n1_x;
  logic [LANES*X_BITS-1:0] n2_x;
  logic [LANES*PAIR_BITS-1:0] n1_parameters;
  logic signed [TOTAL_BITS-1:0] n1_total;
  logic [MANTISSA_BITS-1:0] n1_mantissa;
  logic [5:0] n1_position;
  logic signed [TOTAL_BITS-1:0] n3_total;
  logic [MANTISSA_BITS-1:0] n4_mantissa;
  logic [5:0] n6_position;
  logic [5:0] n7_shift;

  always_ff @(posedge ap_clk)
    if (ce) begin
      n1_x <= waiting[get];
      {n1_total, n1_mantissa, n1_position} <= statistics[oldest];
      n2_x <= n1_x;
    end

  edgemoe_delay #(.WIDTH(TOTAL_BITS), .CYCLES(2)) n_total_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(n1_total),
      .out(n3_total)
  );

  if (PLACES == 1) begin : g_read_one
    always_ff @(posedge ap_clk) if (ce) n1_parameters <= parameter_memory[word];
  end else begin : g_read_two
    always_ff @(posedge ap_clk) if (ce) n1_parameters <= parameter_memory[{place, word}];
  end

  edgemoe_delay #(.WIDTH(MANTISSA_BITS), .CYCLES(3)) mantissa_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(n1_mantissa),
      .out(n4_mantissa)
  );
  edgemoe_delay #(.WIDTH(6), .CYCLES(5)) position_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in(n1_position),
      .out(n6_position)
  );
  // The exponent of the root is half the position.
  always_ff @(posedge ap_clk) if (ce) n7_shift <= 6'(n6_position >> 1) + 6'(MANTISSA_FRAC - NORMALIZED_FRAC);

  for (genvar lane = 0; lane < LANES; lane++) begin : g_normalise
    logic signed [CENTRED_BITS-1:0] scaled;
    logic signed [CENTRED_BITS-1:0] centred;
    logic signed [PRODUCT_BITS-1:0] product;
    logic signed [NORMALIZED_BITS-1:0] normalised;
    logic signed [GAMMA_BITS-1:0] gamma;
    logic signed [BETA_BITS-1:0] beta;
    logic signed [NORMALIZED_BITS+GAMMA_BITS-1:0] weighted;
    logic signed [WIDE_BITS-1:0] wide;

    always_ff @(posedge ap_clk)
      if (ce) begin
        scaled <= $signed(n2_x[lane*X_BITS+:X_BITS]) * $signed({1'b0, channels});
        centred <= scaled - CENTRED_BITS'(n3_total);
        weighted <= normalised * gamma;
        wide <= WIDE_BITS'(weighted) + WIDE_BITS'(beta);
      end

    edgemoe_product #(.A_BITS(CENTRED_BITS), .B_BITS(MANTISSA_BITS + 1), .CYCLES(3)) by_mantissa (
        .ap_clk(ap_clk),
        .ce(ce),
        .a(centred),
        .b({1'b0, n4_mantissa}),
        .out(product)
    );
    edgemoe_round_saturate #(.VALUE_BITS(PRODUCT_BITS), .OUT_BITS(NORMALIZED_BITS)) normalise (
        .ap_clk(ap_clk),
        .ce(ce),
        .value(product),
        .shift(n7_shift),
        .addend(1'b0),
        .out(normalised)
    );
    edgemoe_delay #(.WIDTH(GAMMA_BITS), .CYCLES(6 + ROUND)) gamma_line (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(n1_parameters[lane*PAIR_BITS+:GAMMA_BITS]),
        .out(gamma)
    );
    edgemoe_delay #(.WIDTH(BETA_BITS), .CYCLES(7 + ROUND)) beta_line (
        .ap_clk(ap_clk),
        .ce(ce),
        .in(n1_parameters[lane*PAIR_BITS+GAMMA_BITS+:BETA_BITS]),
        .out(beta)
    );
    edgemoe_round_saturate #(.VALUE_BITS(WIDE_BITS), .OUT_BITS(OPERAND_BITS)) round_operand (
        .ap_clk(ap_clk),
        .ce(ce),
        .value(wide),
        .shift(operand_shift),
        .addend(1'b0),
        .out(operands[lane*OPERAND_BITS+:OPERAND_BITS])
    );
    edgemoe_round_saturate #(.VALUE_BITS(WIDE_BITS), .OUT_BITS(GATE_BITS)) round_gate_operand (
        .ap_clk(ap_clk),
        .ce(ce),
        .value(wide),
        .shift(gate_operand_shift),
        .addend(1'b0),
        .out(gate_operands[lane*GATE_BITS+:GATE_BITS])
    );
  end

  // ---- Results.

  logic [TOKEN_BITS-1:0] given_token;
  assign given_token = TOKEN_BITS'(token - (TOKEN_BITS + 1)'(lag_count));

  edgemoe_valid_delay #(.CYCLES(NORMALISE)) out_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(ce),
      .in(giving),
      .out(out_valid),
      .any(out_busy)
  );
  edgemoe_delay #(.WIDTH(1 + TOKEN_BITS + WORD_BITS), .CYCLES(NORMALISE)) out_note_line (
      .ap_clk(ap_clk),
      .ce(ce),
      .in({last_step, given_token, word}),
      .out({out_last, out_token, out_word})
  );

`ifndef SYNTHESIS
  initial assert (PLACES == 1 || PLACES == 2);
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      if (start && idle) assume (tokens != '0 && words != '0 && lag != '0);
      if (load_valid && load_ready) assume (load_words != '0);
      assert ($onehot0({waiting_to_run, running, draining}));
      if (running) assert (place_full[place]);
    end
`endif

endmodule
