// Router of the accelerator: jobs of the table on the core (`edgemoe_router_core`), its choices into the queues.
//
// A job is taken while idle; `clear` as it begins, `done`, one cycle, once its last entry is in its queue. The gate comes by
// itself. The memory of tokens answers READ cycles after it is asked.
module edgemoe_router_engine
  import edgemoe_job_pkg::*;
#(
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
    parameter int RECORD_BEATS = 2,
    parameter int WORD_BEATS = 1,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 4,
    parameter int GROUP_BITS = 2,
    parameter int EXPERT_BITS = 4,  // of a number of experts
    parameter int RANK_BITS = 2,
    parameter int INTERVAL_BITS = 6,
    parameter int WEIGHT_DEPTH = 16,
    parameter int READ = 3,
    parameter int EXP2 = 4,
    parameter int MANTISSA = 5,
    parameter int SETTLE = 4,  // cycles until what is written can be read, and the queues' lengths
    parameter STYLE = "auto",
    localparam int RECORD_BEAT_BITS = $clog2(RECORD_BEATS + 1)
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic start_valid,
    output logic start_ready,
    input  job_t start_job,
    input  logic [TOKEN_BITS-1:0] start_rows,
    output logic done,

    input  logic load_valid,
    output logic load_ready,
    input  logic [WORD_BITS-1:0] load_words,
    input  logic [GROUP_BITS-1:0] load_groups,
    input  logic [RECORD_BEAT_BITS-1:0] load_record_beats,
    input  logic beat_valid,
    output logic beat_ready,
    input  logic [BEAT_BITS-1:0] beat,

    output logic x_enable,
    output logic [TOKEN_BITS-1:0] x_token,
    output logic [WORD_BITS-1:0] x_word,
    input  logic [LANES*X_BITS-1:0] x,

    output logic clear,
    output logic entry_valid,
    output logic [EXPERT_BITS-1:0] entry_expert,
    output logic [TOKEN_BITS-1:0] entry_place,
    output logic [TOKEN_BITS-1:0] entry_token,
    output logic [GATE_SCORE_BITS-1:0] entry_score
);

  logic busy;
  logic start;
  job_t job;
  logic [TOKEN_BITS-1:0] rows;
  logic core_done;
  logic core_idle;
  logic token_done;
  logic unused_beat_last;
  logic unused_settling;
  logic [RANK_BITS-1:0] entry_rank;
  logic [EXPERTS*TOKEN_BITS-1:0] lengths;
  wire unused = &{1'b0, job, core_idle, token_done, entry_rank, lengths};

  assign start_ready = !busy;
  assign clear = start;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      busy  <= 1'b0;
      start <= 1'b0;
    end else begin
      start <= start_valid && start_ready;
      if (start_valid && start_ready) busy <= 1'b1;
      else if (done) busy <= 1'b0;
    end

  always_ff @(posedge ap_clk)
    if (start_ready) begin
      job  <= start_job;
      rows <= start_rows;
    end

  edgemoe_valid_delay #(.CYCLES(SETTLE)) done_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(core_done),
      .out(done),
      .any(unused_settling)
  );

  edgemoe_router_core #(
      .LANES(LANES),
      .ROUTER_LANES(ROUTER_LANES),
      .EXPERTS(EXPERTS),
      .RANKS(RANKS),
      .X_BITS(X_BITS),
      .W_BITS(W_BITS),
      .W_STORED(W_STORED),
      .SUM_BITS(SUM_BITS),
      .BIAS_BITS(BIAS_BITS),
      .MULTIPLIER_BITS(MULTIPLIER_BITS),
      .MULTIPLIES(MULTIPLIES),
      .RECORD_BITS(RECORD_BITS),
      .SHIFT_STORED(SHIFT_STORED),
      .SCORE_BITS(SCORE_BITS),
      .SCORE_FRAC(SCORE_FRAC),
      .MAXIMUM_BITS(MAXIMUM_BITS),
      .EXP_SUM_BITS(EXP_SUM_BITS),
      .EXP_BITS(EXP_BITS),
      .MANTISSA_FRAC(MANTISSA_FRAC),
      .GATE_SCORE_BITS(GATE_SCORE_BITS),
      .GATE_SCORE_FRAC(GATE_SCORE_FRAC),
      .BEAT_BITS(BEAT_BITS),
      .RECORD_BEATS(RECORD_BEATS),
      .WORD_BEATS(WORD_BEATS),
      .TOKEN_BITS(TOKEN_BITS),
      .WORD_BITS(WORD_BITS),
      .GROUP_BITS(GROUP_BITS),
      .EXPERT_BITS(EXPERT_BITS),
      .RANK_BITS(RANK_BITS),
      .INTERVAL_BITS(INTERVAL_BITS),
      .WEIGHT_DEPTH(WEIGHT_DEPTH),
      .READ(READ),
      .EXP2(EXP2),
      .MANTISSA(MANTISSA),
      .STYLE(STYLE)
  ) core (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .start(start),
      .idle(core_idle),
      .done(core_done),
      .tokens(rows),
      .words(job.words[WORD_BITS-1:0]),
      .experts(job.count[EXPERT_BITS-1:0]),
      .groups(job.blocks[GROUP_BITS-1:0]),
      .top_k(job.top_k[RANK_BITS-1:0]),
      .over_selected(job.flags.over_selected),
      .group_steps(job.words > 16'(ROUTER_LANES) ? job.words[WORD_BITS-1:0] : WORD_BITS'(ROUTER_LANES)),
      .interval(job.pace[INTERVAL_BITS-1:0]),
      .load_valid(load_valid),
      .load_ready(load_ready),
      .load_words(load_words),
      .load_groups(load_groups),
      .load_record_beats(load_record_beats),
      .beat_valid(beat_valid),
      .beat_ready(beat_ready),
      .beat(beat),
      .beat_last(unused_beat_last),
      .token_valid(1'b1),
      .next_token_valid(1'b1),
      .token_done(token_done),
      .x_enable(x_enable),
      .x_token(x_token),
      .x_word(x_word),
      .x(x),
      .entry_valid(entry_valid),
      .entry_expert(entry_expert),
      .entry_place(entry_place),
      .entry_token(entry_token),
      .entry_score(entry_score),
      .entry_rank(entry_rank),
      .lengths(lengths)
  );

`ifndef SYNTHESIS
  initial assert (SETTLE >= 1);
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      if (start_valid && start_ready) assert (start_job.engine == ROUTER);
      if (start) assert (core_idle);
    end
`endif

endmodule
