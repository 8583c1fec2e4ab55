// Linear engine of the accelerator: jobs of the table on the core (`edgemoe_linear_core`), its results into the memories.
//
// A job is taken while idle; `done`, one cycle, once its last value is in memory. Its weights come by themselves, in the order of the
// jobs. Row i of a scattered job is token i of queue `index`: the queue is asked QUEUE_LATENCY cycles before the answer,
// the residual stream RESIDUAL_LATENCY. A job without blocks computes nothing.
module edgemoe_linear_engine
  import edgemoe_job_pkg::*;
#(
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
    parameter int BEAT_BITS = 64,
    parameter int RECORD_BEATS = 1,
    parameter int WORD_BEATS = 1,
    parameter int WEIGHT_ROWS = 64,
    parameter int MAX_GROUP = 4,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 4,  // of a number of operand words
    parameter int OUT_WORD_BITS = 6,
    parameter int BLOCK_BITS = 4,
    parameter int STEP_BITS = 4,
    parameter int X_ADDRESS_BITS = 8,
    parameter int ROW_WORDS = 16,  // of a token in the operand memory: from a tile to the next
    parameter int ROW_WORD_BITS = 5,
    parameter int EXPERT_BITS = 4,
    parameter int QUEUE_LATENCY = 2,
    parameter int RESIDUAL_LATENCY = 4,
    parameter int SETTLE = 2,  // cycles until what is written can be read
    parameter WEIGHT_STYLE = "auto",
    localparam int OUT_BITS = RESIDUAL_BITS > HEAD_BITS ? (RESIDUAL_BITS > HIDDEN_BITS ? RESIDUAL_BITS : HIDDEN_BITS)
        : (HEAD_BITS > HIDDEN_BITS ? HEAD_BITS : HIDDEN_BITS)
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic start_valid,
    output logic start_ready,
    input  job_t start_job,
    input  logic [TOKEN_BITS-1:0] start_rows,
    output logic done,

    output logic setting_valid,  // asks for the settings of `setting_job`
    output job_t setting_job,
    output logic setting_taken,
    input  logic setting_ready,
    input  logic [MULTIPLIER_BITS-1:0] multiplier,
    input  logic [5:0] shift,
    input  logic signed [HIDDEN_BITS-1:0] zero,

    input  logic load_valid,
    output logic load_ready,
    input  logic [WORD_BITS-1:0] load_words,
    input  logic [BLOCK_BITS-1:0] load_blocks,
    input  logic beat_valid,
    output logic beat_ready,
    input  logic [BEAT_BITS-1:0] beat,

    output logic x_enable,
    output logic [X_ADDRESS_BITS-1:0] x_address,  // the data two cycles later
    input  logic [TOKEN_TILE*LANES*X_BITS-1:0] x,

    output logic queue_enable,
    output logic [EXPERT_BITS-1:0] queue_expert,
    output logic [TOKEN_BITS-1:0] queue_place,
    input  logic [TOKEN_BITS-1:0] queue_token,
    input  logic [SCORE_BITS-1:0] queue_score,

    output logic old_enable,
    output logic [TOKEN_BITS-1:0] old_token,
    output logic [OUT_WORD_BITS-1:0] old_word,
    input  logic [LANES*RESIDUAL_BITS-1:0] old,

    output logic [LANES*GELU_BITS-1:0] activation_x,
    input  logic [LANES*ACTIVATED_BITS-1:0] activation_y,

    output logic residual_write,
    output logic [TOKEN_BITS-1:0] residual_token,
    output logic [OUT_WORD_BITS-1:0] residual_word,
    output logic [LANES*RESIDUAL_BITS-1:0] residual_data,

    output logic hidden_write,
    output logic [TOKEN_BITS-1:0] hidden_token,
    output logic [ROW_WORD_BITS-1:0] hidden_word,
    output logic [LANES*HIDDEN_BITS-1:0] hidden_data,

    output logic head_write,
    output logic [OUT_WORD_BITS-1:0] mixed_words,  // of a token's queries
    output logic [TOKEN_BITS-1:0] head_token,
    output logic [OUT_WORD_BITS-1:0] head_word,
    output logic [LANES*HEAD_BITS-1:0] head_data
);

  localparam int LOOKUP = QUEUE_LATENCY + RESIDUAL_LATENCY;
  localparam int SUM = 4 + $clog2(LANES);
  localparam int EARLY = SUM > LOOKUP ? SUM : LOOKUP;  // cycles from the announcement of a result to its old value
  localparam int WRITE = 10 + ACTIVATION;
  localparam logic [1:0] TO_HEADS = 2'd0;
  localparam logic [1:0] TO_HIDDEN = 2'd1;
  localparam logic [1:0] TO_RESIDUAL = 2'd2;
  localparam logic [1:0] TO_EXPERT = 2'd3;
  typedef enum logic [1:0] {
    IDLE,
    CHOOSE,  // until its settings are here
    START,
    RUN
  } state_t;

  // ---- Jobs.

  state_t state;
  job_t job;
  logic [TOKEN_BITS-1:0] rows;
  logic [1:0] way;
  logic empty;
  logic core_done;
  logic core_idle;
  logic unused_settling;
  wire unused = &{1'b0, job, core_idle};

  assign start_ready = state == IDLE;
  assign empty = job.blocks == '0;
  assign setting_valid = state == CHOOSE && !empty;
  assign setting_job = job;
  assign setting_taken = state == START;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      state <= IDLE;
    end else
      case (state)
        IDLE: if (start_valid) state <= CHOOSE;
        CHOOSE: if (empty) state <= IDLE;
        else if (setting_ready) state <= START;
        START: state <= RUN;
        default: if (core_done) state <= IDLE;
      endcase

  always_ff @(posedge ap_clk) begin
    if (state == IDLE) begin
      job  <= start_job;
      rows <= start_rows;
    end
    if (job.destination == REGION_STREAM) way <= job.flags.weighted ? TO_EXPERT : TO_RESIDUAL;
    else way <= job.destination == REGION_HEADS ? TO_HEADS : TO_HIDDEN;
  end

  edgemoe_valid_delay #(.CYCLES(SETTLE)) done_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in((state == RUN && core_done) || (state == CHOOSE && empty)),
      .out(done),
      .any(unused_settling)
  );

  // ---- The core.

  logic early_enable;
  logic [TOKEN_BITS-1:0] early_row;
  logic [OUT_WORD_BITS-1:0] early_word;
  logic takes_old;
  logic [TOKEN_BITS-1:0] taken_row;
  logic [OUT_WORD_BITS-1:0] taken_word;
  logic [SCORE_BITS-1:0] score;
  logic out_valid;
  logic [LANES*OUT_BITS-1:0] results;
  logic unused_beat_last;
  logic unused_old_last;
  logic unused_out_last;
  wire unused_results = &{1'b0, results};

  edgemoe_linear_core #(
      .LANES(LANES),
      .OUTPUTS(OUTPUTS),
      .TOKEN_TILE(TOKEN_TILE),
      .X_BITS(X_BITS),
      .W_BITS(W_BITS),
      .W_STORED(W_STORED),
      .BIAS_BITS(BIAS_BITS),
      .MULTIPLIER_BITS(MULTIPLIER_BITS),
      .MULTIPLIES(MULTIPLIES),
      .RECORD_STORED(RECORD_STORED),
      .SHIFT_STORED(SHIFT_STORED),
      .SUM_BITS(SUM_BITS),
      .PACK_BITS(PACK_BITS),
      .HEAD_BITS(HEAD_BITS),
      .HIDDEN_BITS(HIDDEN_BITS),
      .RESIDUAL_BITS(RESIDUAL_BITS),
      .SCORE_BITS(SCORE_BITS),
      .SCORE_FRAC(SCORE_FRAC),
      .GELU_BITS(GELU_BITS),
      .ACTIVATED_BITS(ACTIVATED_BITS),
      .ACTIVATION(ACTIVATION),
      .OUT_BITS(OUT_BITS),
      .BEAT_BITS(BEAT_BITS),
      .RECORD_BEATS(RECORD_BEATS),
      .WORD_BEATS(WORD_BEATS),
      .WEIGHT_ROWS(WEIGHT_ROWS),
      .MAX_GROUP(MAX_GROUP),
      .TOKEN_BITS(TOKEN_BITS),
      .WORD_BITS(WORD_BITS),
      .OUT_WORD_BITS(OUT_WORD_BITS),
      .BLOCK_BITS(BLOCK_BITS),
      .X_ADDRESS_BITS(X_ADDRESS_BITS),
      .STEP_BITS(STEP_BITS),
      .EARLY(EARLY),
      .WEIGHT_STYLE(WEIGHT_STYLE)
  ) core (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .start(state == START),
      .idle(core_idle),
      .done(core_done),
      .tokens(rows),
      .in_words(job.words[WORD_BITS-1:0]),
      .out_words(job.out_words[OUT_WORD_BITS-1:0]),
      .blocks(job.blocks[BLOCK_BITS-1:0]),
      .x_first(X_ADDRESS_BITS'(job.source_word)),
      .x_stride(X_ADDRESS_BITS'(ROW_WORDS)),
      .destination(way),
      .hidden_multiplier(multiplier),
      .hidden_shift(shift),
      .hidden_zero(zero),
      .load_valid(load_valid),
      .load_ready(load_ready),
      .load_words(load_words),
      .load_blocks(load_blocks),
      .beat_valid(beat_valid),
      .beat_ready(beat_ready),
      .beat(beat),
      .beat_last(unused_beat_last),
      .operands_valid(1'b1),
      .x_enable(x_enable),
      .x_address(x_address),
      .x(x),
      .early_enable(early_enable),
      .early_row(early_row),
      .early_word(early_word),
      .old_enable(takes_old),
      .old_row(taken_row),
      .old_word(taken_word),
      .old_last(unused_old_last),
      .old(old),
      .score(score),
      .activation_x(activation_x),
      .activation_y(activation_y),
      .out_valid(out_valid),
      .out_last(unused_out_last),
      .results(results)
  );
  wire unused_taken = &{1'b0, takes_old, taken_row, taken_word};

  // ---- Whose result it is, and its old value, which are looked for while its sum is still on the way.

  logic [TOKEN_BITS-1:0] queue_row;
  logic [OUT_WORD_BITS-1:0] queue_word;
  logic found_enable;
  logic [TOKEN_BITS-1:0] found_row;
  logic unused_queue_busy;
  logic unused_found_busy;

  edgemoe_valid_delay #(.CYCLES(EARLY - LOOKUP)) queue_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(early_enable),
      .out(queue_enable),
      .any(unused_queue_busy)
  );
  edgemoe_delay #(.WIDTH(TOKEN_BITS + OUT_WORD_BITS), .CYCLES(EARLY - LOOKUP)) queue_note_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in({early_row, early_word}),
      .out({queue_row, queue_word})
  );
  assign queue_expert = job.index[EXPERT_BITS-1:0];
  assign queue_place  = queue_row;

  edgemoe_valid_delay #(.CYCLES(QUEUE_LATENCY)) found_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(queue_enable),
      .out(found_enable),
      .any(unused_found_busy)
  );
  edgemoe_delay #(.WIDTH(TOKEN_BITS + OUT_WORD_BITS), .CYCLES(QUEUE_LATENCY)) found_note_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in({queue_row, queue_word}),
      .out({found_row, old_word})
  );
  assign old_enable = found_enable && way[1];
  assign old_token  = job.flags.scattered ? queue_token : found_row;

  edgemoe_delay #(.WIDTH(SCORE_BITS), .CYCLES(RESIDUAL_LATENCY)) score_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in(queue_score),
      .out(score)
  );

  // ---- Results, to where they belong.

  logic [TOKEN_BITS-1:0] out_token;
  logic [OUT_WORD_BITS-1:0] out_word;

  edgemoe_delay #(.WIDTH(TOKEN_BITS + OUT_WORD_BITS), .CYCLES(RESIDUAL_LATENCY + WRITE)) out_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in({old_token, old_word}),
      .out({out_token, out_word})
  );
  assign mixed_words = job.mixed_words[OUT_WORD_BITS-1:0];

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      residual_write <= 1'b0;
      hidden_write <= 1'b0;
      head_write <= 1'b0;
    end else begin
      residual_write <= out_valid && way[1];
      hidden_write <= out_valid && way == TO_HIDDEN;
      head_write <= out_valid && way == TO_HEADS;
    end

  always_ff @(posedge ap_clk) begin
    residual_token <= out_token;
    residual_word <= out_word;
    hidden_token <= out_token;
    hidden_word <= job.destination_word[ROW_WORD_BITS-1:0] + ROW_WORD_BITS'(out_word);
    head_token <= out_token;
    head_word <= out_word;
  end

  for (genvar lane = 0; lane < LANES; lane++) begin : g_result
    always_ff @(posedge ap_clk) begin
      residual_data[lane*RESIDUAL_BITS+:RESIDUAL_BITS] <= results[lane*OUT_BITS+:RESIDUAL_BITS];
      hidden_data[lane*HIDDEN_BITS+:HIDDEN_BITS] <= results[lane*OUT_BITS+:HIDDEN_BITS];
      head_data[lane*HEAD_BITS+:HEAD_BITS] <= results[lane*OUT_BITS+:HEAD_BITS];
    end
  end

`ifndef SYNTHESIS
  logic [TOKEN_BITS-1:0] row_of_old;
  edgemoe_delay #(.WIDTH(TOKEN_BITS), .CYCLES(RESIDUAL_LATENCY)) row_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in(found_row),
      .out(row_of_old)
  );
  initial assert (SETTLE >= 1 && SUM == core.SUM && WRITE == core.WRITE);
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      if (start_valid && start_ready) assert (start_job.engine == LINEAR);
      if (state == START) assert (core_idle);
      // The old value comes when the core takes it.
      if (takes_old) assert (row_of_old == taken_row);
    end
`endif

endmodule
