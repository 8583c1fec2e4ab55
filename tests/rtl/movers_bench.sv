// The accelerator's memories, movers and loader as they are wired inside it; the test bench is the weight streamer, the
// engines that compute, and the board's memory. Sizes are those of the package that the test writes.
module movers_bench
  import edgemoe_job_pkg::*;
  import movers_sizes::*;
(
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic restart,

    // The job table: as the fetcher takes it, and as the scoreboard does.
    output logic fetch_valid,
    input  logic fetch_ready,
    output logic [JOB_BITS-1:0] fetch_job,
    output logic issue_valid,
    input  logic issue_ready,
    output logic [JOB_BITS-1:0] issue_job,
    output logic all_issued,
    output logic bad_version,
    output logic overflow,

    // What the weight streamer gives.
    input  logic load_valid,
    output logic load_ready,
    input  logic [JOB_BITS-1:0] load_job,
    input  logic in_valid,
    output logic in_ready,
    input  logic [BEAT_BITS-1:0] in_beat,
    input  logic in_last,

    // What the cores take: linear, norm, router from the lowest bit on.
    output logic [BEAT_BITS-1:0] beat,
    output logic [2:0] core_beat_valid,
    input  logic [2:0] core_beat_ready,
    output logic [2:0] core_load_valid,
    input  logic [2:0] core_load_ready,
    output logic [15:0] load_words,
    output logic [15:0] load_blocks,
    output logic [GROUP_BITS-1:0] load_groups,
    output logic [$clog2(RECORD_BEATS + 1)-1:0] load_record_beats,
    output logic [63:0] epsilon,

    // Settings: linear, norm, attention from the lowest bit on.
    input  logic [2:0] setting_valid,
    input  logic [JOB_BITS-1:0] setting_job,
    input  logic [2:0] setting_taken,
    output logic [2:0] setting_ready,
    output logic [5:0] norm_shift,
    output logic [5:0] norm_gate_shift,
    output logic [5:0] attention_score_shift,
    output logic [7:0] attention_shift,
    output logic [MULTIPLIER_BITS-1:0] linear_multiplier,
    output logic [5:0] linear_shift,
    output logic [X_BITS-1:0] linear_zero,

    // Jobs of the movers: positions, pixels, patch queue, gather, output from the lowest bit on.
    input  logic [4:0] start_valid,
    output logic [4:0] start_ready,
    input  logic [JOB_BITS-1:0] start_job,
    input  logic [15:0] start_rows,
    output logic [4:0] done,
    input  logic [63:0] image_address,
    input  logic [63:0] output_address,
    output logic [1:0] failed,

    // The memories: one value is written, to whichever is enabled, and one read.
    input  logic [15:0] token,
    input  logic [15:0] word,
    input  logic [LANES*WIDEST-1:0] write_data,
    input  logic residual_write,
    input  logic operand_write,
    input  logic head_write,
    input  logic [15:0] mixed_words,
    input  logic residual_read,
    output logic residual_valid,
    output logic [LANES*RESIDUAL_BITS-1:0] residual_data,
    input  logic tile_enable,
    input  logic [31:0] tile_address,
    output logic [TOKEN_TILE*LANES*X_BITS-1:0] tile_data,
    input  logic [31:0] q_address,
    input  logic [31:0] k_address,
    input  logic [31:0] v_address,
    output logic [LANES*HEAD_BITS-1:0] q,
    output logic [LANES*HEAD_BITS-1:0] k,
    output logic [LANES*HEAD_BITS-1:0] v,
    input  logic clear,
    input  logic entry_valid,
    input  logic [EXPERT_BITS-1:0] entry_expert,
    input  logic [15:0] entry_place,
    input  logic [SCORE_BITS-1:0] entry_score,
    input  logic router_done,
    input  logic write_back_enable,
    output logic [15:0] queue_token,
    output logic [SCORE_BITS-1:0] queue_score,
    output logic [EXPERTS*16-1:0] lengths,
    output logic [EXPERTS-1:0] active,
    output logic [15:0] decided,

    // The board's memory: pixels are read, the result is written.
    output logic m_axi_ARID,
    output logic [63:0] m_axi_ARADDR,
    output logic [7:0] m_axi_ARLEN,
    output logic [2:0] m_axi_ARSIZE,
    output logic [1:0] m_axi_ARBURST,
    output logic m_axi_ARVALID,
    input  logic m_axi_ARREADY,
    input  logic m_axi_RID,
    input  logic [PORT_BITS-1:0] m_axi_RDATA,
    input  logic [1:0] m_axi_RRESP,
    input  logic m_axi_RLAST,
    input  logic m_axi_RVALID,
    output logic m_axi_RREADY,
    output logic m_axi_AWID,
    output logic [63:0] m_axi_AWADDR,
    output logic [7:0] m_axi_AWLEN,
    output logic [2:0] m_axi_AWSIZE,
    output logic [1:0] m_axi_AWBURST,
    output logic m_axi_AWVALID,
    input  logic m_axi_AWREADY,
    output logic [PORT_BITS-1:0] m_axi_WDATA,
    output logic [PORT_BITS/8-1:0] m_axi_WSTRB,
    output logic m_axi_WLAST,
    output logic m_axi_WVALID,
    input  logic m_axi_WREADY,
    input  logic m_axi_BID,
    input  logic [1:0] m_axi_BRESP,
    input  logic m_axi_BVALID,
    output logic m_axi_BREADY
);

  localparam int RESIDUAL_READ = RESIDUAL_SETUP + LATENCY;
  localparam int OPERAND_READ = 3 + LATENCY + 1;
  localparam int DEPTH = (TOKENS + TOKEN_TILE - 1) / TOKEN_TILE * ROW_WORDS;
  localparam int HEAD_DEPTH = TOKENS * MIXED_WORDS;
  job_t fetched;
  job_t issued;
  job_t loaded;
  job_t setting_of;
  job_t started;
  wire unused = &{1'b0, m_axi_RID, m_axi_BID, write_data, tile_address, q_address, k_address, v_address, token, word};

  assign fetch_job = fetched;
  assign issue_job = issued;
  assign loaded = job_t'(load_job);
  assign setting_of = job_t'(setting_job);
  assign started = job_t'(start_job);
  assign m_axi_ARID = 1'b0;
  assign m_axi_AWID = 1'b0;

  // ---- Job table and parameters.

  logic table_beat_valid;
  logic table_beat_ready;
  logic positions_beat_valid;
  logic positions_beat_ready;

  edgemoe_job_memory #(.BEAT_BITS(BEAT_BITS), .JOBS(JOBS), .LATENCY(LATENCY)) jobs (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .restart(restart),
      .beat_valid(table_beat_valid),
      .beat_ready(table_beat_ready),
      .beat(beat),
      .fetch_valid(fetch_valid),
      .fetch_ready(fetch_ready),
      .fetch_job(fetched),
      .issue_valid(issue_valid),
      .issue_ready(issue_ready),
      .issue_job(issued),
      .all_issued(all_issued),
      .bad_version(bad_version),
      .overflow(overflow)
  );
  edgemoe_parameter_loader #(
      .BEAT_BITS(BEAT_BITS),
      .SETTINGS(SETTINGS),
      .GATE_SHIFT(GATE_SHIFT),
      .MULTIPLIER_BITS(MULTIPLIER_BITS),
      .HIDDEN_BITS(X_BITS),
      .WORD_BITS(16),
      .BLOCK_BITS(16),
      .GROUP_BITS(GROUP_BITS),
      .ROUTER_LANES(ROUTER_LANES),
      .RECORD_BEATS(RECORD_BEATS)
  ) loader (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .restart(restart),
      .load_valid(load_valid),
      .load_ready(load_ready),
      .load_job(loaded),
      .in_valid(in_valid),
      .in_ready(in_ready),
      .in_beat(in_beat),
      .in_last(in_last),
      .beat(beat),
      .linear_beat_valid(core_beat_valid[0]),
      .linear_beat_ready(core_beat_ready[0]),
      .norm_beat_valid(core_beat_valid[1]),
      .norm_beat_ready(core_beat_ready[1]),
      .router_beat_valid(core_beat_valid[2]),
      .router_beat_ready(core_beat_ready[2]),
      .positions_beat_valid(positions_beat_valid),
      .positions_beat_ready(positions_beat_ready),
      .table_beat_valid(table_beat_valid),
      .table_beat_ready(table_beat_ready),
      .linear_load_valid(core_load_valid[0]),
      .linear_load_ready(core_load_ready[0]),
      .norm_load_valid(core_load_valid[1]),
      .norm_load_ready(core_load_ready[1]),
      .router_load_valid(core_load_valid[2]),
      .router_load_ready(core_load_ready[2]),
      .load_words(load_words),
      .load_blocks(load_blocks),
      .load_groups(load_groups),
      .load_record_beats(load_record_beats),
      .epsilon(epsilon),
      .norm_valid(setting_valid[1]),
      .norm_job(setting_of),
      .norm_taken(setting_taken[1]),
      .norm_ready(setting_ready[1]),
      .norm_shift(norm_shift),
      .norm_gate_shift(norm_gate_shift),
      .attention_valid(setting_valid[2]),
      .attention_job(setting_of),
      .attention_taken(setting_taken[2]),
      .attention_ready(setting_ready[2]),
      .attention_score_shift(attention_score_shift),
      .attention_shift(attention_shift),
      .linear_valid(setting_valid[0]),
      .linear_job(setting_of),
      .linear_taken(setting_taken[0]),
      .linear_ready(setting_ready[0]),
      .linear_multiplier(linear_multiplier),
      .linear_shift(linear_shift),
      .linear_zero(linear_zero)
  );

  // ---- Positions, the residual stream, and the result.

  logic positions_write;
  logic [15:0] positions_token;
  logic [15:0] positions_word;
  logic [LANES*RESIDUAL_BITS-1:0] positions_data;
  logic output_read;
  logic output_valid;
  logic [15:0] output_token;
  logic [15:0] output_word;
  wire unused_valid = &{1'b0, output_valid};

  edgemoe_positions #(
      .LANES(LANES),
      .RESIDUAL_BITS(RESIDUAL_BITS),
      .BEAT_BITS(BEAT_BITS),
      .WORD_BEATS(POSITION_BEATS),
      .WORD_BITS(16)
  ) positions (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .start_valid(start_valid[0]),
      .start_ready(start_ready[0]),
      .start_job(started),
      .start_rows(start_rows),
      .done(done[0]),
      .beat_valid(positions_beat_valid),
      .beat_ready(positions_beat_ready),
      .beat(beat),
      .write_enable(positions_write),
      .write_token(positions_token),
      .write_word(positions_word),
      .write_data(positions_data)
  );
  edgemoe_shared_memory #(
      .WIDTH(LANES * RESIDUAL_BITS),
      .TOKENS(TOKENS),
      .ROW_WORDS(TOKEN_WORDS),
      .WORD_BITS(16),
      .SETUP(RESIDUAL_SETUP),
      .LATENCY(LATENCY)
  ) residual (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .write_enable({residual_write, positions_write}),
      .write_token({token, positions_token}),
      .write_word({word, positions_word}),
      .write_data({write_data[LANES*RESIDUAL_BITS-1:0], positions_data}),
      .read_enable({residual_read, output_read}),
      .read_token({token, output_token}),
      .read_word({word, output_word}),
      .read_valid({residual_valid, output_valid}),
      .read_data(residual_data)
  );
  edgemoe_output #(
      .LANES(LANES),
      .RESIDUAL_BITS(RESIDUAL_BITS),
      .PORT_BITS(PORT_BITS),
      .WORD_BITS(16),
      .READ(RESIDUAL_READ),
      .OUTSTANDING(2)
  ) writer (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .address(output_address),
      .start_valid(start_valid[4]),
      .start_ready(start_ready[4]),
      .start_job(started),
      .start_rows(start_rows),
      .done(done[4]),
      .read_enable(output_read),
      .read_token(output_token),
      .read_word(output_word),
      .read_data(residual_data),
      .failed(failed[1]),
      .m_axi_AWADDR(m_axi_AWADDR),
      .m_axi_AWLEN(m_axi_AWLEN),
      .m_axi_AWSIZE(m_axi_AWSIZE),
      .m_axi_AWBURST(m_axi_AWBURST),
      .m_axi_AWVALID(m_axi_AWVALID),
      .m_axi_AWREADY(m_axi_AWREADY),
      .m_axi_WDATA(m_axi_WDATA),
      .m_axi_WSTRB(m_axi_WSTRB),
      .m_axi_WLAST(m_axi_WLAST),
      .m_axi_WVALID(m_axi_WVALID),
      .m_axi_WREADY(m_axi_WREADY),
      .m_axi_BRESP(m_axi_BRESP),
      .m_axi_BVALID(m_axi_BVALID),
      .m_axi_BREADY(m_axi_BREADY)
  );

  // ---- Pixels, queues, gathered tokens: the operands.

  logic pixels_write;
  logic [15:0] pixels_token;
  logic [15:0] pixels_word;
  logic [LANES*X_BITS-1:0] pixels_data;
  logic patch_valid;
  logic [15:0] patch_place;
  logic [15:0] patch_token;
  logic gather_enable;
  logic [EXPERT_BITS-1:0] gather_expert;
  logic [15:0] gather_place;
  logic gather_read;
  logic [15:0] gather_source;
  logic [15:0] gather_word;
  logic gather_valid;
  logic [LANES*X_BITS-1:0] gather_data;
  logic gather_write;
  logic [15:0] gathered_token;
  logic [15:0] gathered_word;
  logic [LANES*X_BITS-1:0] gathered_data;
  wire unused_gather = &{1'b0, gather_valid};

  edgemoe_pixels #(
      .LANES(LANES),
      .X_BITS(X_BITS),
      .PIXEL_OFFSET(PIXEL_OFFSET),
      .PORT_BITS(PORT_BITS),
      .WORD_BITS(16),
      .OUTSTANDING(3)
  ) pixels (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .address(image_address),
      .start_valid(start_valid[1]),
      .start_ready(start_ready[1]),
      .start_job(started),
      .start_rows(start_rows),
      .done(done[1]),
      .write_enable(pixels_write),
      .write_token(pixels_token),
      .write_word(pixels_word),
      .write_data(pixels_data),
      .failed(failed[0]),
      .m_axi_ARADDR(m_axi_ARADDR),
      .m_axi_ARLEN(m_axi_ARLEN),
      .m_axi_ARSIZE(m_axi_ARSIZE),
      .m_axi_ARBURST(m_axi_ARBURST),
      .m_axi_ARVALID(m_axi_ARVALID),
      .m_axi_ARREADY(m_axi_ARREADY),
      .m_axi_RDATA(m_axi_RDATA),
      .m_axi_RRESP(m_axi_RRESP),
      .m_axi_RLAST(m_axi_RLAST),
      .m_axi_RVALID(m_axi_RVALID),
      .m_axi_RREADY(m_axi_RREADY)
  );
  edgemoe_patch_queue patch_tokens (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .start_valid(start_valid[2]),
      .start_ready(start_ready[2]),
      .start_job(started),
      .start_rows(start_rows),
      .done(done[2]),
      .patch_valid(patch_valid),
      .patch_place(patch_place),
      .patch_token(patch_token)
  );
  edgemoe_queue_memory #(
      .EXPERTS(EXPERTS),
      .TOKENS(TOKENS),
      .EXPERT_BITS(EXPERT_BITS),
      .SCORE_BITS(SCORE_BITS),
      .LATENCY(LATENCY)
  ) queues (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .restart(restart),
      .clear(clear),
      .entry_valid(entry_valid),
      .entry_expert(entry_expert),
      .entry_place(entry_place),
      .entry_token(token),
      .entry_score(entry_score),
      .router_done(router_done),
      .patch_valid(patch_valid),
      .patch_place(patch_place),
      .patch_token(patch_token),
      .gather_enable(gather_enable),
      .gather_expert(gather_expert),
      .gather_place(gather_place),
      .write_back_enable(write_back_enable),
      .write_back_expert(entry_expert),
      .write_back_place(entry_place),
      .token(queue_token),
      .score(queue_score),
      .lengths(lengths),
      .active(active),
      .decided(decided)
  );
  edgemoe_gather #(
      .WORD_BITS(16),
      .EXPERT_BITS(EXPERT_BITS),
      .WIDTH(LANES * X_BITS),
      .QUEUE(LATENCY),
      .READ(OPERAND_READ)
  ) gather (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .start_valid(start_valid[3]),
      .start_ready(start_ready[3]),
      .start_job(started),
      .start_rows(start_rows),
      .done(done[3]),
      .queue_enable(gather_enable),
      .queue_expert(gather_expert),
      .queue_place(gather_place),
      .queue_token(queue_token),
      .read_enable(gather_read),
      .read_token(gather_source),
      .read_word(gather_word),
      .read_data(gather_data),
      .write_enable(gather_write),
      .write_token(gathered_token),
      .write_word(gathered_word),
      .write_data(gathered_data)
  );
  edgemoe_operand_memory #(
      .LANES(LANES),
      .X_BITS(X_BITS),
      .TOKEN_TILE(TOKEN_TILE),
      .TOKENS(TOKENS),
      .ROW_WORDS(ROW_WORDS),
      .WORD_BITS(16),
      .WRITERS(3),
      .LATENCY(LATENCY)
  ) operands (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .write_enable({operand_write, gather_write, pixels_write}),
      .write_token({token, gathered_token, pixels_token}),
      .write_word({word, gathered_word, pixels_word}),
      .write_data({write_data[LANES*X_BITS-1:0], gathered_data, pixels_data}),
      .tile_enable(tile_enable),
      .tile_address(($clog2(DEPTH))'(tile_address)),
      .tile_data(tile_data),
      .read_enable(gather_read),
      .read_token(gather_source),
      .read_word(gather_word),
      .read_valid(gather_valid),
      .read_data(gather_data)
  );
  edgemoe_head_memory #(
      .WIDTH(LANES * HEAD_BITS),
      .TOKENS(TOKENS),
      .ROW_WORDS(MIXED_WORDS),
      .WORD_BITS(16),
      .LATENCY(LATENCY)
  ) heads (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .mixed_words(mixed_words),
      .write_enable(head_write),
      .write_token(token),
      .write_word(word),
      .write_data(write_data[LANES*HEAD_BITS-1:0]),
      .q_address(($clog2(HEAD_DEPTH))'(q_address)),
      .k_address(($clog2(HEAD_DEPTH))'(k_address)),
      .v_address(($clog2(HEAD_DEPTH))'(v_address)),
      .q(q),
      .k(k),
      .v(v)
  );

endmodule
