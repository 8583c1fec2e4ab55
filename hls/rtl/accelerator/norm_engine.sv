// LayerNorm of the accelerator: jobs of the table on the core (`edgemoe_norm_core`), between the residual stream and the operands.
//
// A job is taken while idle; `done`, one cycle, once its last value is in memory. gamma and beta come by themselves, in the order of the
// jobs, two norms ahead at most. The residual stream answers X_LATENCY cycles after it is asked.
module edgemoe_norm_engine
  import edgemoe_job_pkg::*;
#(
    parameter int LANES = 4,
    parameter int X_BITS = 24,
    parameter int DIM_BITS = 8,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 4,
    parameter int LAG_BITS = 6,
    parameter int X_LATENCY = 4,
    parameter int MANTISSA_FRAC = 16,
    parameter int MANTISSA = 5,
    parameter int NORMALIZED_BITS = 24,
    parameter int NORMALIZED_FRAC = 16,
    parameter int GAMMA_BITS = 16,
    parameter int BETA_BITS = 48,
    parameter int OPERAND_BITS = 8,
    parameter int GATE_BITS = 16,
    parameter int RECORD_STORED = 64,
    parameter int BEAT_BITS = 64,
    parameter int WORD_BEATS = 8,
    parameter int SLOT_BITS = 6,
    parameter int WAIT_BITS = 6,
    parameter int ROW_WORD_BITS = 5,  // of a word in a token's row of the operand memory
    parameter int SETTLE = 2  // cycles until what is written can be read
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic start_valid,
    output logic start_ready,
    input  job_t start_job,
    input  logic [TOKEN_BITS-1:0] start_rows,
    output logic done,
    input  logic [63:0] epsilon,

    output logic setting_valid,  // asks for the settings of `setting_job`
    output job_t setting_job,
    output logic setting_taken,
    input  logic setting_ready,
    input  logic [5:0] shift,
    input  logic [5:0] gate_shift,

    input  logic load_valid,
    output logic load_ready,
    input  logic [WORD_BITS-1:0] load_words,
    input  logic beat_valid,
    output logic beat_ready,
    input  logic [BEAT_BITS-1:0] beat,

    output logic x_enable,
    output logic [TOKEN_BITS-1:0] x_token,
    output logic [WORD_BITS-1:0] x_word,
    input  logic [LANES*X_BITS-1:0] x,

    output logic operand_write,
    output logic [TOKEN_BITS-1:0] operand_token,
    output logic [ROW_WORD_BITS-1:0] operand_word,
    output logic [LANES*OPERAND_BITS-1:0] operand_data,

    output logic gate_write,
    output logic [TOKEN_BITS-1:0] gate_token,
    output logic [WORD_BITS-1:0] gate_word,
    output logic [LANES*GATE_BITS-1:0] gate_data
);

  typedef enum logic [1:0] {
    IDLE,
    CHOOSE,  // until its settings are here
    START,
    RUN
  } state_t;

  state_t state;
  job_t job;
  logic [TOKEN_BITS-1:0] rows;
  logic core_done;
  logic core_idle;
  logic out_valid;
  logic [TOKEN_BITS-1:0] out_token;
  logic [WORD_BITS-1:0] out_word;
  logic [LANES*OPERAND_BITS-1:0] operands;
  logic [LANES*GATE_BITS-1:0] gate_operands;
  logic unused_beat_last;
  logic unused_x_last;
  logic unused_out_last;
  logic unused_settling;
  wire unused = &{1'b0, job, core_idle};

  assign start_ready = state == IDLE;
  assign setting_valid = state == CHOOSE;
  assign setting_job = job;
  assign setting_taken = state == START;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      state <= IDLE;
    end else
      case (state)
        IDLE: if (start_valid) state <= CHOOSE;
        CHOOSE: if (setting_ready) state <= START;
        START: state <= RUN;
        default: if (core_done) state <= IDLE;
      endcase

  always_ff @(posedge ap_clk) begin
    if (state == IDLE) begin
      job  <= start_job;
      rows <= start_rows;
    end
  end

  edgemoe_valid_delay #(.CYCLES(SETTLE)) done_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(state == RUN && core_done),
      .out(done),
      .any(unused_settling)
  );

  edgemoe_norm_core #(
      .LANES(LANES),
      .X_BITS(X_BITS),
      .DIM_BITS(DIM_BITS),
      .TOKEN_BITS(TOKEN_BITS),
      .WORD_BITS(WORD_BITS),
      .LAG_BITS(LAG_BITS),
      .X_LATENCY(X_LATENCY),
      .PLACES(2),
      .MANTISSA_FRAC(MANTISSA_FRAC),
      .MANTISSA(MANTISSA),
      .NORMALIZED_BITS(NORMALIZED_BITS),
      .NORMALIZED_FRAC(NORMALIZED_FRAC),
      .GAMMA_BITS(GAMMA_BITS),
      .BETA_BITS(BETA_BITS),
      .OPERAND_BITS(OPERAND_BITS),
      .GATE_BITS(GATE_BITS),
      .RECORD_STORED(RECORD_STORED),
      .BEAT_BITS(BEAT_BITS),
      .WORD_BEATS(WORD_BEATS),
      .SLOT_BITS(SLOT_BITS),
      .WAIT_BITS(WAIT_BITS)
  ) core (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .start(state == START),
      .idle(core_idle),
      .done(core_done),
      .tokens(rows),
      .dim(job.channels[DIM_BITS-1:0]),
      .words(job.words[WORD_BITS-1:0]),
      .lag(job.pace[LAG_BITS-1:0]),
      .epsilon(epsilon),
      .shift(shift),
      .gate_shift(gate_shift),
      .load_valid(load_valid),
      .load_ready(load_ready),
      .load_words(load_words),
      .beat_valid(beat_valid),
      .beat_ready(beat_ready),
      .beat(beat),
      .beat_last(unused_beat_last),
      .x_enable(x_enable),
      .x_token(x_token),
      .x_word(x_word),
      .x_last(unused_x_last),
      .x(x),
      .out_valid(out_valid),
      .out_token(out_token),
      .out_word(out_word),
      .out_last(unused_out_last),
      .operands(operands),
      .gate_operands(gate_operands)
  );

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      operand_write <= 1'b0;
      gate_write <= 1'b0;
    end else begin
      operand_write <= out_valid;
      gate_write <= out_valid && job.flags.to_router;
    end

  always_ff @(posedge ap_clk) begin
    operand_token <= out_token;
    operand_word <= job.destination_word[ROW_WORD_BITS-1:0] + ROW_WORD_BITS'(out_word);
    operand_data <= operands;
    gate_token <= out_token;
    gate_word <= out_word;
    gate_data <= gate_operands;
  end

`ifndef SYNTHESIS
  initial assert (SETTLE >= 1);
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      if (start_valid && start_ready) assert (start_job.engine == NORM);
      if (state == START) assert (core_idle);
    end
`endif

endmodule
