// Attention of the accelerator: jobs of the table on the core (`edgemoe_attention_core`), a call of it for each image.
//
// A job is taken while idle; `done`, one cycle, once its last value is in memory. The memories of queries, keys and values answer READ
// cycles after they are asked; a token's row in them has HEAD_WORDS words.
module edgemoe_attention_engine
  import edgemoe_job_pkg::*;
#(
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
    parameter int SCORE_LIFT = 0,
    parameter int READ = 2,
    parameter int SCORE_BITS = 24,
    parameter int SCORE_FRAC = 16,
    parameter int MAXIMUM_BITS = 9,
    parameter int SUM_BITS = 32,
    parameter int WEIGHT_BITS = 23,
    parameter int WEIGHT_FRAC = 22,
    parameter int WEIGHTED_BITS = 48,
    parameter int MANTISSA_FRAC = 16,
    parameter int EXP2 = 4,
    parameter int MANTISSA = 5,
    parameter int TOKEN_BITS = 16,
    parameter int HEAD_WORDS = 8,  // of a token's row of queries, keys or values
    parameter int ROW_WORD_BITS = 5,  // of a word in a token's row of the operand memory
    parameter int SETTLE = 2  // cycles until what is written can be read
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic start_valid,
    output logic start_ready,
    input  job_t start_job,
    input  logic [TOKEN_BITS-1:0] start_rows,  // of all images
    output logic done,

    output logic setting_valid,  // asks for the settings of `setting_job`
    output job_t setting_job,
    output logic setting_taken,
    input  logic setting_ready,
    input  logic [5:0] score_shift,
    input  logic signed [7:0] attention_shift,

    output logic [ADDRESS_BITS-1:0] q_address,
    output logic [ADDRESS_BITS-1:0] k_address,
    output logic [ADDRESS_BITS-1:0] v_address,
    input  logic [LANES*Q_BITS-1:0] q,
    input  logic [LANES*Q_BITS-1:0] k,
    input  logic [LANES*Q_BITS-1:0] v,

    output logic mixed_write,
    output logic [TOKEN_BITS-1:0] mixed_token,
    output logic [ROW_WORD_BITS-1:0] mixed_word,
    output logic [LANES*OUT_BITS-1:0] mixed_data
);

  typedef enum logic [1:0] {
    IDLE,
    CHOOSE,  // until its settings are here
    START,  // the next image
    RUN
  } state_t;

  // ---- Jobs: image after image.

  state_t state;
  job_t job;
  logic [TOKEN_BITS-1:0] rows_left;
  logic [TOKEN_BITS-1:0] first_token;
  logic [ADDRESS_BITS-1:0] image_first;  // address of the image's first word
  logic [ADDRESS_BITS-1:0] image_words;
  logic [ADDRESS_BITS-1:0] head_first;
  logic [ROW_WORD_BITS-1:0] first_word;  // of the head's results
  logic [KEY_BITS-1:0] block_rows;
  logic core_done;
  logic core_idle;
  logic head_done;
  logic last_image;
  logic out_valid;
  logic [KEY_BITS-1:0] out_row;
  logic [WORD_BITS-1:0] out_word;
  logic [LANES*OUT_BITS-1:0] mixed;
  logic unused_out_last;
  logic unused_settling;
  wire unused = &{1'b0, job, core_idle};

  assign start_ready = state == IDLE;
  assign setting_valid = state == CHOOSE;
  assign setting_job = job;
  assign setting_taken = state == RUN && core_done && last_image;
  assign last_image = rows_left == job.rows[TOKEN_BITS-1:0];

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      state <= IDLE;
    end else
      case (state)
        IDLE: if (start_valid) state <= CHOOSE;
        CHOOSE: if (setting_ready) state <= START;
        START: state <= RUN;
        default: if (core_done) state <= last_image ? IDLE : START;
      endcase

  always_ff @(posedge ap_clk) begin
    if (state == IDLE) begin
      job <= start_job;
      rows_left <= start_rows;
      first_token <= '0;
      image_first <= '0;
    end else if (state == RUN && core_done) begin
      rows_left <= rows_left - job.rows[TOKEN_BITS-1:0];
      first_token <= first_token + job.rows[TOKEN_BITS-1:0];
      image_first <= image_first + image_words;
    end
    image_words <= ADDRESS_BITS'(job.rows[KEY_BITS-1:0]) * ADDRESS_BITS'(HEAD_WORDS);
    block_rows <= job.rows[KEY_BITS-1:0] < KEY_BITS'(SLOTS) ? job.rows[KEY_BITS-1:0] : KEY_BITS'(SLOTS);
    if (state == START) begin
      head_first <= image_first;
      first_word <= job.destination_word[ROW_WORD_BITS-1:0];
    end else if (head_done) begin
      head_first <= head_first + ADDRESS_BITS'(job.words);
      first_word <= first_word + ROW_WORD_BITS'(job.words);
    end
  end

  edgemoe_valid_delay #(.CYCLES(SETTLE)) done_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(state == RUN && core_done && last_image),
      .out(done),
      .any(unused_settling)
  );

  edgemoe_attention_core #(
      .LANES(LANES),
      .SLOTS(SLOTS),
      .Q_BITS(Q_BITS),
      .OUT_BITS(OUT_BITS),
      .HEAD_BITS(HEAD_BITS),
      .KEY_BITS(KEY_BITS),
      .WORD_BITS(WORD_BITS),
      .STEP_BITS(STEP_BITS),
      .ADDRESS_BITS(ADDRESS_BITS),
      .MAX_TOKENS(MAX_TOKENS),
      .MAX_WORDS(MAX_WORDS),
      .SCORE_LIFT(SCORE_LIFT),
      .READ(READ),
      .SCORE_BITS(SCORE_BITS),
      .SCORE_FRAC(SCORE_FRAC),
      .MAXIMUM_BITS(MAXIMUM_BITS),
      .SUM_BITS(SUM_BITS),
      .WEIGHT_BITS(WEIGHT_BITS),
      .WEIGHT_FRAC(WEIGHT_FRAC),
      .WEIGHTED_BITS(WEIGHTED_BITS),
      .MANTISSA_FRAC(MANTISSA_FRAC),
      .EXP2(EXP2),
      .MANTISSA(MANTISSA)
  ) core (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .start(state == START),
      .idle(core_idle),
      .done(core_done),
      .heads(job.count[HEAD_BITS-1:0]),
      .tokens(job.rows[KEY_BITS-1:0]),
      .words(job.words[WORD_BITS-1:0]),
      .rows(block_rows),
      .stride(ADDRESS_BITS'(HEAD_WORDS)),
      .block_stride(ADDRESS_BITS'(SLOTS * HEAD_WORDS)),
      .step(job.pace[STEP_BITS-1:0]),
      .score_shift(score_shift),
      .attention_shift(attention_shift),
      .head_valid(1'b1),
      .head_done(head_done),
      .head_first(head_first),
      .q_address(q_address),
      .k_address(k_address),
      .v_address(v_address),
      .q(q),
      .k(k),
      .v(v),
      .out_valid(out_valid),
      .out_row(out_row),
      .out_word(out_word),
      .out_last(unused_out_last),
      .mixed(mixed)
  );

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) mixed_write <= 1'b0;
    else mixed_write <= out_valid;

  always_ff @(posedge ap_clk) begin
    mixed_token <= first_token + TOKEN_BITS'(out_row);
    mixed_word <= first_word + ROW_WORD_BITS'(out_word);
    mixed_data <= mixed;
  end

`ifndef SYNTHESIS
  initial assert (SETTLE >= 1);
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      if (start_valid && start_ready) begin
        assert (start_job.engine == ATTENTION);
        assume (start_job.rows != '0 && start_rows >= start_job.rows[TOKEN_BITS-1:0]);
      end
      if (state == START) assert (core_idle);
    end
`endif

endmodule
