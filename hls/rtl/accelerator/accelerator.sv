// The whole accelerator behind its registers: streamer, engines and memories, led by a job table that lies in memory.
//
// A call begins with `call_valid` while `call_ready`; its arguments stay until `call_done`, one cycle, by which time the result is in
// memory and nothing is under way. A table that cannot be read ends the call with a fault. All sizes are capacities: a
// network may have less of everything, as its jobs say.
//
// The activation function is outside: what goes out on `activation_x` is back on `activation_y` ACTIVATION cycles later.
module edgemoe_accelerator
  import edgemoe_job_pkg::*;
#(
    // Parallelism, and what feeds it.
    parameter int LANES = 4,
    parameter int OUTPUTS = 8,
    parameter int TOKEN_TILE = 2,
    parameter int ATTENTION_ROWS = 4,
    parameter int ROUTER_LANES = 4,
    parameter int PORTS = 2,
    parameter int PORT_BITS = 64,
    parameter int RING_BEATS = 1024,
    // Capacities.
    parameter int JOBS = 64,
    parameter int MAX_BATCH = 1,
    parameter int MAX_TOKENS = 16,  // of a batch
    parameter int IMAGE_TOKENS = 16,
    parameter int DIM = 16,
    parameter int TOKEN_WORDS = 4,
    parameter int ROW_WORDS = 16,  // of a token in the operand memory
    parameter int HEAD_WORDS = 2,
    parameter int MIXED_WORDS = 4,  // of a token's queries
    parameter int IN_WORDS = 8,  // operands of a linear layer
    parameter int OUT_WORDS = 12,  // results of a linear layer, whole blocks
    parameter int BLOCKS = 6,
    parameter int MAX_GROUP = 4,
    parameter int WEIGHT_ROWS = 64,
    parameter int EXPERTS = 4,
    parameter int RANKS = 2,
    parameter int GATE_GROUPS = 1,
    parameter int SETTINGS = 17,
    parameter int INTERVAL_BITS = 6,
    parameter int LAG_BITS = 6,
    parameter int WAIT_BITS = 6,
    // Numbers.
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
    parameter int HEAD_BITS = 8,
    parameter int HIDDEN_BITS = 8,
    parameter int RESIDUAL_BITS = 24,
    parameter int PROBABILITY_BITS = 17,
    parameter int PROBABILITY_FRAC = 16,
    parameter int ACTIVATION_IN_BITS = 24,
    parameter int ACTIVATION_OUT_BITS = 26,
    parameter int GATE_BITS = 16,
    parameter int GATE_STORED = 16,
    parameter int SCORE_BITS = 24,
    parameter int SCORE_FRAC = 16,
    parameter int SCORE_LIFT = 0,
    parameter int MAXIMUM_BITS = 9,
    parameter int EXP_BITS = 23,
    parameter int EXP_FRAC = 22,
    parameter int EXP_SUM_BITS = 32,
    parameter int WEIGHTED_BITS = 48,
    parameter int MANTISSA_FRAC = 16,
    parameter int NORMALIZED_BITS = 24,
    parameter int NORMALIZED_FRAC = 16,
    parameter int GAMMA_BITS = 16,
    parameter int BETA_BITS = 48,
    parameter int PIXEL_OFFSET = 128,
    // Places of parameters in the weight image.
    parameter int RECORD_BEATS = 1,
    parameter int WORD_BEATS = 1,
    parameter int GATE_RECORD_BEATS = 1,
    parameter int GATE_WORD_BEATS = 1,
    parameter int NORM_WORD_BEATS = 1,
    parameter int POSITION_WORD_BEATS = 1,
    parameter int GATE_SHIFT = 2,
    // Cycles of the function units.
    parameter int ACTIVATION = 4,
    parameter int EXP2 = 4,
    parameter int MANTISSA = 5,
    // What memories are built of.
    parameter WEIGHT_STYLE = "auto",
    parameter OPERAND_STYLE = "auto",
    parameter RESIDUAL_STYLE = "auto",
    parameter HEAD_STYLE = "auto",
    parameter GATE_STYLE = "auto",
    parameter QUEUE_STYLE = "auto",
    parameter RING_STYLE = "block",
    parameter JOB_STYLE = "block",
    localparam int BATCH_BITS = $clog2(MAX_BATCH + 1)
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic call_valid,
    output logic call_ready,
    output logic call_done,
    input  logic [BATCH_BITS-1:0] batch,
    input  logic [15:0] task_number,
    input  logic speculate,  // fetch experts before their router has decided
    input  logic [63:0] image_address,
    input  logic [63:0] output_address,
    input  logic [PORTS*64-1:0] weight_addresses,
    output logic bad_table,  // the job table of this call could not be read
    output logic failed,  // memory has refused an access since the last reset

    output logic [LANES*ACTIVATION_IN_BITS-1:0] activation_x,
    input  logic [LANES*ACTIVATION_OUT_BITS-1:0] activation_y,

    output logic [PORTS*64-1:0] weights_ARADDR,
    output logic [PORTS*8-1:0] weights_ARLEN,
    output logic [PORTS*3-1:0] weights_ARSIZE,
    output logic [PORTS*2-1:0] weights_ARBURST,
    output logic [PORTS-1:0] weights_ARVALID,
    input  logic [PORTS-1:0] weights_ARREADY,
    input  logic [PORTS*PORT_BITS-1:0] weights_RDATA,
    input  logic [PORTS*2-1:0] weights_RRESP,
    input  logic [PORTS-1:0] weights_RLAST,
    input  logic [PORTS-1:0] weights_RVALID,
    output logic [PORTS-1:0] weights_RREADY,

    output logic [63:0] image_ARADDR,
    output logic [7:0] image_ARLEN,
    output logic [2:0] image_ARSIZE,
    output logic [1:0] image_ARBURST,
    output logic image_ARVALID,
    input  logic image_ARREADY,
    input  logic [PORT_BITS-1:0] image_RDATA,
    input  logic [1:0] image_RRESP,
    input  logic image_RLAST,
    input  logic image_RVALID,
    output logic image_RREADY,

    output logic [63:0] output_AWADDR,
    output logic [7:0] output_AWLEN,
    output logic [2:0] output_AWSIZE,
    output logic [1:0] output_AWBURST,
    output logic output_AWVALID,
    input  logic output_AWREADY,
    output logic [PORT_BITS-1:0] output_WDATA,
    output logic [PORT_BITS/8-1:0] output_WSTRB,
    output logic output_WLAST,
    output logic output_WVALID,
    input  logic output_WREADY,
    input  logic [1:0] output_BRESP,
    input  logic output_BVALID,
    output logic output_BREADY
);

  localparam int ENGINES = 9;
  localparam int BEAT_BITS = PORTS * PORT_BITS;
  localparam int TOKEN_BITS = 16;
  localparam int READ_LATENCY = 2;  // of every memory
  localparam int SHARED_SETUP = 2;  // of a memory that engines share
  localparam int SHARED_READ = SHARED_SETUP + READ_LATENCY;
  localparam int GATHER_READ = 4 + READ_LATENCY;
  localparam int GATE_SETUP = 1;
  localparam int GATE_READ = GATE_SETUP + READ_LATENCY;
  localparam int SETTLE = 2;

  function automatic int larger(input int a, input int b);
    larger = a > b ? a : b;
  endfunction

  localparam int PARTS = OUTPUTS / LANES;
  localparam int WORD_BITS = $clog2(larger(IN_WORDS, larger(TOKEN_WORDS, ROUTER_LANES)) + 1);
  localparam int OUT_WORD_BITS = $clog2(OUT_WORDS + 1);
  localparam int BLOCK_BITS = $clog2(BLOCKS + 1);
  localparam int STEP_BITS = $clog2(larger(IN_WORDS, PARTS * TOKEN_TILE) + 1);
  localparam int ROW_WORD_BITS = $clog2(ROW_WORDS + 1);
  localparam int TOKEN_WORD_BITS = $clog2(TOKEN_WORDS + 1);
  localparam int ROUTER_WORD_BITS = $clog2(larger(TOKEN_WORDS, ROUTER_LANES) + 1);
  localparam int TILES = (MAX_TOKENS + TOKEN_TILE - 1) / TOKEN_TILE;
  localparam int X_ADDRESS_BITS = $clog2(larger(TILES * ROW_WORDS, 2));
  localparam int HEAD_ADDRESS_BITS = $clog2(larger(MAX_TOKENS * MIXED_WORDS, 2));
  localparam int KEY_BITS = $clog2(IMAGE_TOKENS + 1);
  localparam int HEAD_WORD_BITS = $clog2(HEAD_WORDS + 1);
  localparam int EXPERT_BITS = $clog2(EXPERTS + 1);
  localparam int RANK_BITS = $clog2(RANKS + 1);
  localparam int GROUP_BITS = $clog2(GATE_GROUPS + 1);
  localparam int ATTENTION_STEP_BITS = $clog2(larger(HEAD_WORDS, 4) + 1);
  localparam int GATE_RECORD_BITS = $clog2(GATE_RECORD_BEATS + 1);
  localparam int X_WIDTH = LANES * X_BITS;
  localparam int RESIDUAL_WIDTH = LANES * RESIDUAL_BITS;

  // ---- A call: from the job table to the last write.

  typedef enum logic [1:0] {
    IDLE,
    RUN,
    EMPTY  // the result is out, or never will be: what was asked for comes in
  } state_t;

  state_t state;
  logic restart;
  logic streamer_idle;
  logic scoreboard_idle;
  logic bad_version;
  logic overflow;
  logic unused_all_issued;
  logic [ENGINES-1:0] engine_done;

  assign call_ready = state == IDLE;
  assign restart = call_valid && call_ready;
  assign call_done = state == EMPTY && streamer_idle && scoreboard_idle;
  assign bad_table = bad_version || overflow;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      state <= IDLE;
    end else
      case (state)
        IDLE: if (call_valid) state <= RUN;
        RUN: if (engine_done[OUTPUT[3:0]] || bad_table) state <= EMPTY;
        default: if (call_done) state <= IDLE;
      endcase

  // ---- The job table, to the weight streamer and to the scoreboard.

  logic fetch_valid;
  logic fetch_ready;
  job_t fetch_job;
  logic table_valid;
  logic table_ready;
  job_t table_job;
  logic issue_valid;
  logic issue_ready;
  job_t issue_job;
  logic [TOKEN_BITS-1:0] issue_rows;
  logic [BEAT_BITS-1:0] beat;
  logic table_beat_valid;
  logic table_beat_ready;
  logic [EXPERTS*TOKEN_BITS-1:0] lengths;
  logic [EXPERTS-1:0] active;
  logic [15:0] decided;
  logic [ENGINES-1:0] start_valid;
  logic [ENGINES-1:0] start_ready;
  logic [ENGINES*TOKEN_BITS-1:0] start_rows;
  logic [ENGINES*JOB_BITS-1:0] start_job;

  edgemoe_job_memory #(.BEAT_BITS(BEAT_BITS), .JOBS(JOBS), .LATENCY(READ_LATENCY), .STYLE(JOB_STYLE)) job_memory (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .restart(restart),
      .beat_valid(table_beat_valid),
      .beat_ready(table_beat_ready),
      .beat(beat),
      .fetch_valid(fetch_valid),
      .fetch_ready(fetch_ready),
      .fetch_job(fetch_job),
      .issue_valid(table_valid),
      .issue_ready(table_ready),
      .issue_job(table_job),
      .all_issued(unused_all_issued),
      .bad_version(bad_version),
      .overflow(overflow)
  );

  edgemoe_issue_stage #(.TOKEN_BITS(TOKEN_BITS), .BATCH_BITS(BATCH_BITS)) issue_stage (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .restart(restart),
      .batch(batch),
      .in_valid(table_valid),
      .in_ready(table_ready),
      .in_job(table_job),
      .out_valid(issue_valid),
      .out_ready(issue_ready),
      .out_job(issue_job),
      .out_rows(issue_rows)
  );

  localparam int INDEX_BITS = EXPERTS > 1 ? $clog2(EXPERTS) : 1;

  edgemoe_scoreboard #(
      .ENGINES(ENGINES),
      .JOB_BITS(JOB_BITS),
      .EXPERTS(EXPERTS),
      .TOKEN_BITS(TOKEN_BITS)
  ) scoreboard (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .restart(restart),
      .job_valid(issue_valid),
      .job_ready(issue_ready),
      .job_engine(issue_job.engine[3:0]),
      .job_waits(issue_job.waits_for[ENGINES-1:0]),
      .job_skips(issue_job.flags.skips_if_empty),
      .job_index(issue_job.index[INDEX_BITS-1:0]),
      .job_rows(issue_rows),
      .job(issue_job),
      .lengths(lengths),
      .start_valid(start_valid),
      .start_ready(start_ready),
      .start_rows(start_rows),
      .start_job(start_job),
      .done(engine_done),
      .idle(scoreboard_idle)
  );

  wire unused_starts = &{1'b0, start_rows, start_job};

  // ---- Weights.

  logic load_valid;
  logic load_ready;
  job_t load_job;
  logic stream_valid;
  logic stream_ready;
  logic stream_last;
  logic [BEAT_BITS-1:0] stream_beat;
  logic weights_failed;

  edgemoe_weight_streamer #(
      .PORTS(PORTS),
      .PORT_BITS(PORT_BITS),
      .DEPTH(RING_BEATS),
      .EXPERTS(EXPERTS),
      .STYLE(RING_STYLE)
  ) weight_streamer (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .restart(restart),
      .addresses(weight_addresses),
      .task_number(task_number),
      .speculate(speculate),
      .decided(decided),
      .active(active),
      .job_valid(fetch_valid),
      .job_ready(fetch_ready),
      .job(fetch_job),
      .load_valid(load_valid),
      .load_ready(load_ready),
      .load_job(load_job),
      .beat_valid(stream_valid),
      .beat_ready(stream_ready),
      .beat_data(stream_beat),
      .beat_last(stream_last),
      .idle(streamer_idle),
      .failed(weights_failed),
      .m_axi_ARADDR(weights_ARADDR),
      .m_axi_ARLEN(weights_ARLEN),
      .m_axi_ARSIZE(weights_ARSIZE),
      .m_axi_ARBURST(weights_ARBURST),
      .m_axi_ARVALID(weights_ARVALID),
      .m_axi_ARREADY(weights_ARREADY),
      .m_axi_RDATA(weights_RDATA),
      .m_axi_RRESP(weights_RRESP),
      .m_axi_RLAST(weights_RLAST),
      .m_axi_RVALID(weights_RVALID),
      .m_axi_RREADY(weights_RREADY)
  );

  logic linear_beat_valid;
  logic linear_beat_ready;
  logic norm_beat_valid;
  logic norm_beat_ready;
  logic router_beat_valid;
  logic router_beat_ready;
  logic positions_beat_valid;
  logic positions_beat_ready;
  logic linear_load_valid;
  logic linear_load_ready;
  logic norm_load_valid;
  logic norm_load_ready;
  logic router_load_valid;
  logic router_load_ready;
  logic [WORD_BITS-1:0] load_words;
  logic [BLOCK_BITS-1:0] load_blocks;
  logic [GROUP_BITS-1:0] load_groups;
  logic [GATE_RECORD_BITS-1:0] load_record_beats;
  logic [63:0] epsilon;
  logic norm_asks;
  job_t norm_job;
  logic norm_taken;
  logic norm_settled;
  logic [5:0] norm_shift;
  logic [5:0] norm_gate_shift;
  logic attention_asks;
  job_t attention_job;
  logic attention_taken;
  logic attention_settled;
  logic [5:0] attention_score_shift;
  logic signed [7:0] attention_shift;
  logic linear_asks;
  job_t linear_job;
  logic linear_taken;
  logic linear_settled;
  logic [MULTIPLIER_BITS-1:0] linear_multiplier;
  logic [5:0] linear_shift;
  logic signed [HIDDEN_BITS-1:0] linear_zero;
  wire unused_load_words = &{1'b0, load_words};

  edgemoe_parameter_loader #(
      .BEAT_BITS(BEAT_BITS),
      .SETTINGS(SETTINGS),
      .GATE_SHIFT(GATE_SHIFT),
      .MULTIPLIER_BITS(MULTIPLIER_BITS),
      .HIDDEN_BITS(HIDDEN_BITS),
      .WORD_BITS(WORD_BITS),
      .BLOCK_BITS(BLOCK_BITS),
      .GROUP_BITS(GROUP_BITS),
      .ROUTER_LANES(ROUTER_LANES),
      .RECORD_BEATS(GATE_RECORD_BEATS)
  ) parameter_loader (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .restart(restart),
      .load_valid(load_valid),
      .load_ready(load_ready),
      .load_job(load_job),
      .in_valid(stream_valid),
      .in_ready(stream_ready),
      .in_beat(stream_beat),
      .in_last(stream_last),
      .beat(beat),
      .linear_beat_valid(linear_beat_valid),
      .linear_beat_ready(linear_beat_ready),
      .norm_beat_valid(norm_beat_valid),
      .norm_beat_ready(norm_beat_ready),
      .router_beat_valid(router_beat_valid),
      .router_beat_ready(router_beat_ready),
      .positions_beat_valid(positions_beat_valid),
      .positions_beat_ready(positions_beat_ready),
      .table_beat_valid(table_beat_valid),
      .table_beat_ready(table_beat_ready),
      .linear_load_valid(linear_load_valid),
      .linear_load_ready(linear_load_ready),
      .norm_load_valid(norm_load_valid),
      .norm_load_ready(norm_load_ready),
      .router_load_valid(router_load_valid),
      .router_load_ready(router_load_ready),
      .load_words(load_words),
      .load_blocks(load_blocks),
      .load_groups(load_groups),
      .load_record_beats(load_record_beats),
      .epsilon(epsilon),
      .norm_valid(norm_asks),
      .norm_job(norm_job),
      .norm_taken(norm_taken),
      .norm_ready(norm_settled),
      .norm_shift(norm_shift),
      .norm_gate_shift(norm_gate_shift),
      .attention_valid(attention_asks),
      .attention_job(attention_job),
      .attention_taken(attention_taken),
      .attention_ready(attention_settled),
      .attention_score_shift(attention_score_shift),
      .attention_shift(attention_shift),
      .linear_valid(linear_asks),
      .linear_job(linear_job),
      .linear_taken(linear_taken),
      .linear_ready(linear_settled),
      .linear_multiplier(linear_multiplier),
      .linear_shift(linear_shift),
      .linear_zero(linear_zero)
  );

  // ---- Memories. Of each, who writes it and who reads it, from bit 0 on, as the job table keeps them apart.

  // Residual stream: positions, linear; norm, linear, output.
  logic positions_write;
  logic [TOKEN_BITS-1:0] positions_token;
  logic [TOKEN_WORD_BITS-1:0] positions_word;
  logic [RESIDUAL_WIDTH-1:0] positions_data;
  logic residual_write;
  logic [TOKEN_BITS-1:0] residual_token;
  logic [OUT_WORD_BITS-1:0] residual_word;
  logic [RESIDUAL_WIDTH-1:0] residual_data;
  logic norm_read;
  logic [TOKEN_BITS-1:0] norm_read_token;
  logic [TOKEN_WORD_BITS-1:0] norm_read_word;
  logic old_read;
  logic [TOKEN_BITS-1:0] old_token;
  logic [OUT_WORD_BITS-1:0] old_word;
  logic output_read;
  logic [TOKEN_BITS-1:0] output_token;
  logic [TOKEN_WORD_BITS-1:0] output_word;
  logic [RESIDUAL_WIDTH-1:0] residual;
  logic [2:0] unused_residual_valid;
  wire unused_words = &{1'b0, residual_word, old_word};

  edgemoe_shared_memory #(
      .WIDTH(RESIDUAL_WIDTH),
      .TOKENS(MAX_TOKENS),
      .ROW_WORDS(TOKEN_WORDS),
      .TOKEN_BITS(TOKEN_BITS),
      .WORD_BITS(TOKEN_WORD_BITS),
      .WRITERS(2),
      .READERS(3),
      .SETUP(SHARED_SETUP),
      .LATENCY(READ_LATENCY),
      .STYLE(RESIDUAL_STYLE)
  ) residual_memory (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .write_enable({residual_write, positions_write}),
      .write_token({residual_token, positions_token}),
      .write_word({TOKEN_WORD_BITS'(residual_word), positions_word}),
      .write_data({residual_data, positions_data}),
      .read_enable({output_read, old_read, norm_read}),
      .read_token({output_token, old_token, norm_read_token}),
      .read_word({output_word, TOKEN_WORD_BITS'(old_word), norm_read_word}),
      .read_valid(unused_residual_valid),
      .read_data(residual)
  );

  // Operands: norm, attention, linear, gather, pixels; linear, gather. Pixels may be wider than what engines give.
  logic operand_write;
  logic [TOKEN_BITS-1:0] operand_token;
  logic [ROW_WORD_BITS-1:0] operand_word;
  logic [LANES*HIDDEN_BITS-1:0] operand_data;
  logic mixed_write;
  logic [TOKEN_BITS-1:0] mixed_token;
  logic [ROW_WORD_BITS-1:0] mixed_word;
  logic [LANES*HIDDEN_BITS-1:0] mixed_data;
  logic hidden_write;
  logic [TOKEN_BITS-1:0] hidden_token;
  logic [ROW_WORD_BITS-1:0] hidden_word;
  logic [LANES*HIDDEN_BITS-1:0] hidden_data;
  logic gather_write;
  logic [TOKEN_BITS-1:0] gather_write_token;
  logic [ROW_WORD_BITS-1:0] gather_write_word;
  logic [X_WIDTH-1:0] gather_write_data;
  logic pixels_write;
  logic [TOKEN_BITS-1:0] pixels_token;
  logic [ROW_WORD_BITS-1:0] pixels_word;
  logic [X_WIDTH-1:0] pixels_data;
  logic x_enable;
  logic [X_ADDRESS_BITS-1:0] x_address;
  logic [TOKEN_TILE*X_WIDTH-1:0] x;
  logic gather_read;
  logic [TOKEN_BITS-1:0] gather_token;
  logic [ROW_WORD_BITS-1:0] gather_word;
  logic [X_WIDTH-1:0] gathered;
  logic unused_gathered_valid;
  logic [X_WIDTH-1:0] wide_operand;
  logic [X_WIDTH-1:0] wide_mixed;
  logic [X_WIDTH-1:0] wide_hidden;

  for (genvar lane = 0; lane < LANES; lane++) begin : g_wide
    assign wide_operand[lane*X_BITS+:X_BITS] = X_BITS'($signed(operand_data[lane*HIDDEN_BITS+:HIDDEN_BITS]));
    assign wide_mixed[lane*X_BITS+:X_BITS] = X_BITS'($signed(mixed_data[lane*HIDDEN_BITS+:HIDDEN_BITS]));
    assign wide_hidden[lane*X_BITS+:X_BITS] = X_BITS'($signed(hidden_data[lane*HIDDEN_BITS+:HIDDEN_BITS]));
  end

  edgemoe_operand_memory #(
      .LANES(LANES),
      .X_BITS(X_BITS),
      .TOKEN_TILE(TOKEN_TILE),
      .TOKENS(MAX_TOKENS),
      .ROW_WORDS(ROW_WORDS),
      .TOKEN_BITS(TOKEN_BITS),
      .WORD_BITS(ROW_WORD_BITS),
      .WRITERS(5),
      .LATENCY(READ_LATENCY),
      .STYLE(OPERAND_STYLE)
  ) operand_memory (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .write_enable({pixels_write, gather_write, hidden_write, mixed_write, operand_write}),
      .write_token({pixels_token, gather_write_token, hidden_token, mixed_token, operand_token}),
      .write_word({pixels_word, gather_write_word, hidden_word, mixed_word, operand_word}),
      .write_data({pixels_data, gather_write_data, wide_hidden, wide_mixed, wide_operand}),
      .tile_enable(x_enable),
      .tile_address(x_address),
      .tile_data(x),
      .read_enable(gather_read),
      .read_token(gather_token),
      .read_word(gather_word),
      .read_valid(unused_gathered_valid),
      .read_data(gathered)
  );

  // Queries, keys, values: linear; attention.
  logic head_write;
  logic [OUT_WORD_BITS-1:0] mixed_words;
  logic [TOKEN_BITS-1:0] head_token;
  logic [OUT_WORD_BITS-1:0] head_word;
  logic [LANES*HEAD_BITS-1:0] head_data;
  logic [HEAD_ADDRESS_BITS-1:0] q_address;
  logic [HEAD_ADDRESS_BITS-1:0] k_address;
  logic [HEAD_ADDRESS_BITS-1:0] v_address;
  logic [LANES*HEAD_BITS-1:0] q;
  logic [LANES*HEAD_BITS-1:0] k;
  logic [LANES*HEAD_BITS-1:0] v;

  edgemoe_head_memory #(
      .WIDTH(LANES * HEAD_BITS),
      .TOKENS(MAX_TOKENS),
      .ROW_WORDS(MIXED_WORDS),
      .TOKEN_BITS(TOKEN_BITS),
      .WORD_BITS(OUT_WORD_BITS),
      .LATENCY(READ_LATENCY),
      .STYLE(HEAD_STYLE)
  ) head_memory (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .mixed_words(mixed_words),
      .write_enable(head_write),
      .write_token(head_token),
      .write_word(head_word),
      .write_data(head_data),
      .q_address(q_address),
      .k_address(k_address),
      .v_address(v_address),
      .q(q),
      .k(k),
      .v(v)
  );

  // Queues: router, queue of patches; gather, linear.
  logic router_clear;
  logic entry_valid;
  logic [EXPERT_BITS-1:0] entry_expert;
  logic [TOKEN_BITS-1:0] entry_place;
  logic [TOKEN_BITS-1:0] entry_token;
  logic [PROBABILITY_BITS-1:0] entry_score;
  logic patch_valid;
  logic [TOKEN_BITS-1:0] patch_place;
  logic [TOKEN_BITS-1:0] patch_token;
  logic gather_asks;
  logic [EXPERT_BITS-1:0] gather_expert;
  logic [TOKEN_BITS-1:0] gather_place;
  logic scatter_asks;
  logic [EXPERT_BITS-1:0] scatter_expert;
  logic [TOKEN_BITS-1:0] scatter_place;
  logic [TOKEN_BITS-1:0] queue_token;
  logic [PROBABILITY_BITS-1:0] queue_score;

  edgemoe_queue_memory #(
      .EXPERTS(EXPERTS),
      .TOKENS(MAX_TOKENS),
      .TOKEN_BITS(TOKEN_BITS),
      .EXPERT_BITS(EXPERT_BITS),
      .SCORE_BITS(PROBABILITY_BITS),
      .LATENCY(READ_LATENCY),
      .STYLE(QUEUE_STYLE)
  ) queue_memory (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .restart(restart),
      .clear(router_clear),
      .entry_valid(entry_valid),
      .entry_expert(entry_expert),
      .entry_place(entry_place),
      .entry_token(entry_token),
      .entry_score(entry_score),
      .router_done(engine_done[ROUTER[3:0]]),
      .patch_valid(patch_valid),
      .patch_place(patch_place),
      .patch_token(patch_token),
      .gather_enable(gather_asks),
      .gather_expert(gather_expert),
      .gather_place(gather_place),
      .write_back_enable(scatter_asks),
      .write_back_expert(scatter_expert),
      .write_back_place(scatter_place),
      .token(queue_token),
      .score(queue_score),
      .lengths(lengths),
      .active(active),
      .decided(decided)
  );

  // ---- Engines.

  edgemoe_positions #(
      .LANES(LANES),
      .RESIDUAL_BITS(RESIDUAL_BITS),
      .BEAT_BITS(BEAT_BITS),
      .WORD_BEATS(POSITION_WORD_BEATS),
      .TOKEN_BITS(TOKEN_BITS),
      .WORD_BITS(TOKEN_WORD_BITS)
  ) positions (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .start_valid(start_valid[POSITIONS[3:0]]),
      .start_ready(start_ready[POSITIONS[3:0]]),
      .start_job(start_job[POSITIONS*JOB_BITS+:JOB_BITS]),
      .start_rows(start_rows[POSITIONS*TOKEN_BITS+:TOKEN_BITS]),
      .done(engine_done[POSITIONS[3:0]]),
      .beat_valid(positions_beat_valid),
      .beat_ready(positions_beat_ready),
      .beat(beat),
      .write_enable(positions_write),
      .write_token(positions_token),
      .write_word(positions_word),
      .write_data(positions_data)
  );

  logic image_failed;

  edgemoe_pixels #(
      .LANES(LANES),
      .X_BITS(X_BITS),
      .PIXEL_OFFSET(PIXEL_OFFSET),
      .PORT_BITS(PORT_BITS),
      .TOKEN_BITS(TOKEN_BITS),
      .WORD_BITS(ROW_WORD_BITS)
  ) pixels (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .address(image_address),
      .start_valid(start_valid[PIXELS[3:0]]),
      .start_ready(start_ready[PIXELS[3:0]]),
      .start_job(start_job[PIXELS*JOB_BITS+:JOB_BITS]),
      .start_rows(start_rows[PIXELS*TOKEN_BITS+:TOKEN_BITS]),
      .done(engine_done[PIXELS[3:0]]),
      .write_enable(pixels_write),
      .write_token(pixels_token),
      .write_word(pixels_word),
      .write_data(pixels_data),
      .failed(image_failed),
      .m_axi_ARADDR(image_ARADDR),
      .m_axi_ARLEN(image_ARLEN),
      .m_axi_ARSIZE(image_ARSIZE),
      .m_axi_ARBURST(image_ARBURST),
      .m_axi_ARVALID(image_ARVALID),
      .m_axi_ARREADY(image_ARREADY),
      .m_axi_RDATA(image_RDATA),
      .m_axi_RRESP(image_RRESP),
      .m_axi_RLAST(image_RLAST),
      .m_axi_RVALID(image_RVALID),
      .m_axi_RREADY(image_RREADY)
  );

  edgemoe_patch_queue #(.TOKEN_BITS(TOKEN_BITS)) patch_queue (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .start_valid(start_valid[PATCH_QUEUE[3:0]]),
      .start_ready(start_ready[PATCH_QUEUE[3:0]]),
      .start_job(start_job[PATCH_QUEUE*JOB_BITS+:JOB_BITS]),
      .start_rows(start_rows[PATCH_QUEUE*TOKEN_BITS+:TOKEN_BITS]),
      .done(engine_done[PATCH_QUEUE[3:0]]),
      .patch_valid(patch_valid),
      .patch_place(patch_place),
      .patch_token(patch_token)
  );

  edgemoe_linear_engine #(
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
      .SCORE_BITS(PROBABILITY_BITS),
      .SCORE_FRAC(PROBABILITY_FRAC),
      .GELU_BITS(ACTIVATION_IN_BITS),
      .ACTIVATED_BITS(ACTIVATION_OUT_BITS),
      .ACTIVATION(ACTIVATION),
      .BEAT_BITS(BEAT_BITS),
      .RECORD_BEATS(RECORD_BEATS),
      .WORD_BEATS(WORD_BEATS),
      .WEIGHT_ROWS(WEIGHT_ROWS),
      .MAX_GROUP(MAX_GROUP),
      .TOKEN_BITS(TOKEN_BITS),
      .WORD_BITS(WORD_BITS),
      .OUT_WORD_BITS(OUT_WORD_BITS),
      .BLOCK_BITS(BLOCK_BITS),
      .STEP_BITS(STEP_BITS),
      .X_ADDRESS_BITS(X_ADDRESS_BITS),
      .ROW_WORDS(ROW_WORDS),
      .ROW_WORD_BITS(ROW_WORD_BITS),
      .EXPERT_BITS(EXPERT_BITS),
      .QUEUE_LATENCY(READ_LATENCY),
      .RESIDUAL_LATENCY(SHARED_READ),
      .SETTLE(SETTLE),
      .WEIGHT_STYLE(WEIGHT_STYLE)
  ) linear_engine (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .start_valid(start_valid[LINEAR[3:0]]),
      .start_ready(start_ready[LINEAR[3:0]]),
      .start_job(start_job[LINEAR*JOB_BITS+:JOB_BITS]),
      .start_rows(start_rows[LINEAR*TOKEN_BITS+:TOKEN_BITS]),
      .done(engine_done[LINEAR[3:0]]),
      .setting_valid(linear_asks),
      .setting_job(linear_job),
      .setting_taken(linear_taken),
      .setting_ready(linear_settled),
      .multiplier(linear_multiplier),
      .shift(linear_shift),
      .zero(linear_zero),
      .load_valid(linear_load_valid),
      .load_ready(linear_load_ready),
      .load_words(load_words),
      .load_blocks(load_blocks),
      .beat_valid(linear_beat_valid),
      .beat_ready(linear_beat_ready),
      .beat(beat),
      .x_enable(x_enable),
      .x_address(x_address),
      .x(x),
      .queue_enable(scatter_asks),
      .queue_expert(scatter_expert),
      .queue_place(scatter_place),
      .queue_token(queue_token),
      .queue_score(queue_score),
      .old_enable(old_read),
      .old_token(old_token),
      .old_word(old_word),
      .old(residual),
      .activation_x(activation_x),
      .activation_y(activation_y),
      .residual_write(residual_write),
      .residual_token(residual_token),
      .residual_word(residual_word),
      .residual_data(residual_data),
      .hidden_write(hidden_write),
      .hidden_token(hidden_token),
      .hidden_word(hidden_word),
      .hidden_data(hidden_data),
      .head_write(head_write),
      .mixed_words(mixed_words),
      .head_token(head_token),
      .head_word(head_word),
      .head_data(head_data)
  );

  logic gate_write;
  logic [TOKEN_BITS-1:0] gate_token;
  logic [TOKEN_WORD_BITS-1:0] gate_word;
  logic [LANES*GATE_BITS-1:0] gate_data;

  edgemoe_norm_engine #(
      .LANES(LANES),
      .X_BITS(RESIDUAL_BITS),
      .DIM_BITS($clog2(DIM + 1)),
      .TOKEN_BITS(TOKEN_BITS),
      .WORD_BITS(TOKEN_WORD_BITS),
      .LAG_BITS(LAG_BITS),
      .X_LATENCY(SHARED_READ),
      .MANTISSA_FRAC(MANTISSA_FRAC),
      .MANTISSA(MANTISSA),
      .NORMALIZED_BITS(NORMALIZED_BITS),
      .NORMALIZED_FRAC(NORMALIZED_FRAC),
      .GAMMA_BITS(GAMMA_BITS),
      .BETA_BITS(BETA_BITS),
      .OPERAND_BITS(HIDDEN_BITS),
      .GATE_BITS(GATE_BITS),
      .RECORD_STORED(RECORD_STORED),
      .BEAT_BITS(BEAT_BITS),
      .WORD_BEATS(NORM_WORD_BEATS),
      .SLOT_BITS(LAG_BITS),
      .WAIT_BITS(WAIT_BITS),
      .ROW_WORD_BITS(ROW_WORD_BITS),
      .SETTLE(SETTLE)
  ) norm_engine (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .start_valid(start_valid[NORM[3:0]]),
      .start_ready(start_ready[NORM[3:0]]),
      .start_job(start_job[NORM*JOB_BITS+:JOB_BITS]),
      .start_rows(start_rows[NORM*TOKEN_BITS+:TOKEN_BITS]),
      .done(engine_done[NORM[3:0]]),
      .epsilon(epsilon),
      .setting_valid(norm_asks),
      .setting_job(norm_job),
      .setting_taken(norm_taken),
      .setting_ready(norm_settled),
      .shift(norm_shift),
      .gate_shift(norm_gate_shift),
      .load_valid(norm_load_valid),
      .load_ready(norm_load_ready),
      .load_words(TOKEN_WORD_BITS'(load_words)),
      .beat_valid(norm_beat_valid),
      .beat_ready(norm_beat_ready),
      .beat(beat),
      .x_enable(norm_read),
      .x_token(norm_read_token),
      .x_word(norm_read_word),
      .x(residual),
      .operand_write(operand_write),
      .operand_token(operand_token),
      .operand_word(operand_word),
      .operand_data(operand_data),
      .gate_write(gate_write),
      .gate_token(gate_token),
      .gate_word(gate_word),
      .gate_data(gate_data)
  );

  edgemoe_attention_engine #(
      .LANES(LANES),
      .SLOTS(ATTENTION_ROWS),
      .Q_BITS(HEAD_BITS),
      .OUT_BITS(HIDDEN_BITS),
      .HEAD_BITS($clog2(MIXED_WORDS + 1)),
      .KEY_BITS(KEY_BITS),
      .WORD_BITS(HEAD_WORD_BITS),
      .STEP_BITS(ATTENTION_STEP_BITS),
      .ADDRESS_BITS(HEAD_ADDRESS_BITS),
      .MAX_TOKENS(IMAGE_TOKENS),
      .MAX_WORDS(HEAD_WORDS),
      .SCORE_LIFT(SCORE_LIFT),
      .READ(READ_LATENCY),
      .SCORE_BITS(SCORE_BITS),
      .SCORE_FRAC(SCORE_FRAC),
      .MAXIMUM_BITS(MAXIMUM_BITS),
      .SUM_BITS(EXP_SUM_BITS),
      .WEIGHT_BITS(EXP_BITS),
      .WEIGHT_FRAC(EXP_FRAC),
      .WEIGHTED_BITS(WEIGHTED_BITS),
      .MANTISSA_FRAC(MANTISSA_FRAC),
      .EXP2(EXP2),
      .MANTISSA(MANTISSA),
      .TOKEN_BITS(TOKEN_BITS),
      .HEAD_WORDS(MIXED_WORDS),
      .ROW_WORD_BITS(ROW_WORD_BITS),
      .SETTLE(SETTLE)
  ) attention_engine (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .start_valid(start_valid[ATTENTION[3:0]]),
      .start_ready(start_ready[ATTENTION[3:0]]),
      .start_job(start_job[ATTENTION*JOB_BITS+:JOB_BITS]),
      .start_rows(start_rows[ATTENTION*TOKEN_BITS+:TOKEN_BITS]),
      .done(engine_done[ATTENTION[3:0]]),
      .setting_valid(attention_asks),
      .setting_job(attention_job),
      .setting_taken(attention_taken),
      .setting_ready(attention_settled),
      .score_shift(attention_score_shift),
      .attention_shift(attention_shift),
      .q_address(q_address),
      .k_address(k_address),
      .v_address(v_address),
      .q(q),
      .k(k),
      .v(v),
      .mixed_write(mixed_write),
      .mixed_token(mixed_token),
      .mixed_word(mixed_word),
      .mixed_data(mixed_data)
  );

  // The router and its tokens, where there are experts to choose from.
  if (EXPERTS > 1) begin : g_router
    logic x_read;
    logic [TOKEN_BITS-1:0] x_token;
    logic [ROUTER_WORD_BITS-1:0] x_word;
    logic [LANES*GATE_BITS-1:0] gate_x;
    logic unused_gate_valid;
    wire unused_x_word = &{1'b0, x_word};

    edgemoe_shared_memory #(
        .WIDTH(LANES * GATE_BITS),
        .TOKENS(MAX_TOKENS),
        .ROW_WORDS(TOKEN_WORDS),
        .TOKEN_BITS(TOKEN_BITS),
        .WORD_BITS(TOKEN_WORD_BITS),
        .WRITERS(1),
        .READERS(1),
        .SETUP(GATE_SETUP),
        .LATENCY(READ_LATENCY),
        .STYLE(GATE_STYLE)
    ) gate_memory (
        .ap_clk(ap_clk),
        .ap_rst_n(ap_rst_n),
        .write_enable(gate_write),
        .write_token(gate_token),
        .write_word(gate_word),
        .write_data(gate_data),
        .read_enable(x_read),
        .read_token(x_token),
        .read_word(TOKEN_WORD_BITS'(x_word)),
        .read_valid(unused_gate_valid),
        .read_data(gate_x)
    );

    edgemoe_router_engine #(
        .LANES(LANES),
        .ROUTER_LANES(ROUTER_LANES),
        .EXPERTS(EXPERTS),
        .RANKS(RANKS),
        .X_BITS(GATE_BITS),
        .W_BITS(GATE_BITS),
        .W_STORED(GATE_STORED),
        .SUM_BITS(SUM_BITS),
        .BIAS_BITS(BIAS_BITS),
        .MULTIPLIER_BITS(MULTIPLIER_BITS),
        .MULTIPLIES(MULTIPLIES),
        .RECORD_BITS(RECORD_STORED),
        .SHIFT_STORED(SHIFT_STORED),
        .SCORE_BITS(SCORE_BITS),
        .SCORE_FRAC(SCORE_FRAC),
        .MAXIMUM_BITS(MAXIMUM_BITS),
        .EXP_SUM_BITS(EXP_SUM_BITS),
        .EXP_BITS(EXP_BITS),
        .MANTISSA_FRAC(MANTISSA_FRAC),
        .GATE_SCORE_BITS(PROBABILITY_BITS),
        .GATE_SCORE_FRAC(PROBABILITY_FRAC),
        .BEAT_BITS(BEAT_BITS),
        .RECORD_BEATS(GATE_RECORD_BEATS),
        .WORD_BEATS(GATE_WORD_BEATS),
        .TOKEN_BITS(TOKEN_BITS),
        .WORD_BITS(ROUTER_WORD_BITS),
        .GROUP_BITS(GROUP_BITS),
        .EXPERT_BITS(EXPERT_BITS),
        .RANK_BITS(RANK_BITS),
        .INTERVAL_BITS(INTERVAL_BITS),
        .WEIGHT_DEPTH(GATE_GROUPS * TOKEN_WORDS),
        .READ(GATE_READ),
        .EXP2(EXP2),
        .MANTISSA(MANTISSA)
    ) router_engine (
        .ap_clk(ap_clk),
        .ap_rst_n(ap_rst_n),
        .start_valid(start_valid[ROUTER[3:0]]),
        .start_ready(start_ready[ROUTER[3:0]]),
        .start_job(start_job[ROUTER*JOB_BITS+:JOB_BITS]),
        .start_rows(start_rows[ROUTER*TOKEN_BITS+:TOKEN_BITS]),
        .done(engine_done[ROUTER[3:0]]),
        .load_valid(router_load_valid),
        .load_ready(router_load_ready),
        .load_words(ROUTER_WORD_BITS'(load_words)),
        .load_groups(load_groups),
        .load_record_beats(load_record_beats),
        .beat_valid(router_beat_valid),
        .beat_ready(router_beat_ready),
        .beat(beat),
        .x_enable(x_read),
        .x_token(x_token),
        .x_word(x_word),
        .x(gate_x),
        .clear(router_clear),
        .entry_valid(entry_valid),
        .entry_expert(entry_expert),
        .entry_place(entry_place),
        .entry_token(entry_token),
        .entry_score(entry_score)
    );

    edgemoe_gather #(
        .TOKEN_BITS(TOKEN_BITS),
        .WORD_BITS(ROW_WORD_BITS),
        .EXPERT_BITS(EXPERT_BITS),
        .WIDTH(X_WIDTH),
        .QUEUE(READ_LATENCY),
        .READ(GATHER_READ)
    ) gather (
        .ap_clk(ap_clk),
        .ap_rst_n(ap_rst_n),
        .start_valid(start_valid[GATHER[3:0]]),
        .start_ready(start_ready[GATHER[3:0]]),
        .start_job(start_job[GATHER*JOB_BITS+:JOB_BITS]),
        .start_rows(start_rows[GATHER*TOKEN_BITS+:TOKEN_BITS]),
        .done(engine_done[GATHER[3:0]]),
        .queue_enable(gather_asks),
        .queue_expert(gather_expert),
        .queue_place(gather_place),
        .queue_token(queue_token),
        .read_enable(gather_read),
        .read_token(gather_token),
        .read_word(gather_word),
        .read_data(gathered),
        .write_enable(gather_write),
        .write_token(gather_write_token),
        .write_word(gather_write_word),
        .write_data(gather_write_data)
    );
  end else begin : g_no_router
    assign start_ready[ROUTER[3:0]] = 1'b0;
    assign start_ready[GATHER[3:0]] = 1'b0;
    assign engine_done[ROUTER[3:0]] = 1'b0;
    assign engine_done[GATHER[3:0]] = 1'b0;
    assign router_load_ready = 1'b0;
    assign router_beat_ready = 1'b0;
    assign router_clear = 1'b0;
    assign entry_valid = 1'b0;
    assign {entry_expert, entry_place, entry_token, entry_score} = '0;
    assign {gather_asks, gather_expert, gather_place} = '0;
    assign {gather_read, gather_token, gather_word} = '0;
    assign {gather_write, gather_write_token, gather_write_word, gather_write_data} = '0;
    wire unused_gate = &{1'b0, gate_write, gate_token, gate_word, gate_data, gathered, load_groups, load_record_beats,
        router_load_valid, router_beat_valid, start_valid[ROUTER[3:0]], start_valid[GATHER[3:0]]};
  end

  logic output_failed;

  edgemoe_output #(
      .LANES(LANES),
      .RESIDUAL_BITS(RESIDUAL_BITS),
      .PORT_BITS(PORT_BITS),
      .TOKEN_BITS(TOKEN_BITS),
      .WORD_BITS(TOKEN_WORD_BITS),
      .READ(SHARED_READ)
  ) output_engine (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .address(output_address),
      .start_valid(start_valid[OUTPUT[3:0]]),
      .start_ready(start_ready[OUTPUT[3:0]]),
      .start_job(start_job[OUTPUT*JOB_BITS+:JOB_BITS]),
      .start_rows(start_rows[OUTPUT*TOKEN_BITS+:TOKEN_BITS]),
      .done(engine_done[OUTPUT[3:0]]),
      .read_enable(output_read),
      .read_token(output_token),
      .read_word(output_word),
      .read_data(residual),
      .failed(output_failed),
      .m_axi_AWADDR(output_AWADDR),
      .m_axi_AWLEN(output_AWLEN),
      .m_axi_AWSIZE(output_AWSIZE),
      .m_axi_AWBURST(output_AWBURST),
      .m_axi_AWVALID(output_AWVALID),
      .m_axi_AWREADY(output_AWREADY),
      .m_axi_WDATA(output_WDATA),
      .m_axi_WSTRB(output_WSTRB),
      .m_axi_WLAST(output_WLAST),
      .m_axi_WVALID(output_WVALID),
      .m_axi_WREADY(output_WREADY),
      .m_axi_BRESP(output_BRESP),
      .m_axi_BVALID(output_BVALID),
      .m_axi_BREADY(output_BREADY)
  );

  assign failed = weights_failed || image_failed || output_failed;

`ifndef SYNTHESIS
  // What a simulation watches: jobs as they start and end.
  logic [ENGINES-1:0] event_start /* verilator public_flat_rd */;
  logic [ENGINES-1:0] event_done /* verilator public_flat_rd */;
  job_t [ENGINES-1:0] event_job /* verilator public_flat_rd */;

  assign event_start = start_valid & start_ready;
  assign event_done  = engine_done;
  for (genvar engine = 0; engine < ENGINES; engine++) begin : g_event
    always_ff @(posedge ap_clk) if (event_start[engine]) event_job[engine] <= start_job[engine*JOB_BITS+:JOB_BITS];
  end
  initial begin
    assert (GATHER_READ == operand_memory.SETUP + 1 + READ_LATENCY);
    assert (MAX_TOKENS >= IMAGE_TOKENS && MIXED_WORDS >= HEAD_WORDS);
  end
`endif

endmodule
