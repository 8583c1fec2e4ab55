// Starts jobs: each as soon as its engine is free and all that it waits for is done.
//
// Jobs come in the order of the table into a queue for each engine. A job takes along, for every engine in its `waits`, how
// many jobs that engine has been given so far; it may start once that many are done. An engine does one job after the
// other. So engines run side by side as far as the table lets them.
//
// A job that is skipped where the queue of tokens of its `index` is empty is done when it would have started. `rows` of a job
// are its own, or where these are 0 the length of that queue.
module edgemoe_scoreboard #(
    parameter int ENGINES = 9,
    parameter int JOB_BITS = 512,  // what goes with a job, unread
    parameter int EXPERTS = 16,
    parameter int TOKEN_BITS = 16,
    parameter int COUNT_BITS = 12,  // of the number of an engine's jobs in a call
    localparam int ENGINE_BITS = ENGINES > 1 ? $clog2(ENGINES) : 1,
    localparam int EXPERT_BITS = EXPERTS > 1 ? $clog2(EXPERTS) : 1
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic restart,  // a new call: all jobs are done

    input  logic job_valid,
    output logic job_ready,
    input  logic [ENGINE_BITS-1:0] job_engine,
    input  logic [ENGINES-1:0] job_waits,
    input  logic job_skips,
    input  logic [EXPERT_BITS-1:0] job_index,
    input  logic [TOKEN_BITS-1:0] job_rows,
    input  logic [JOB_BITS-1:0] job,

    input  logic [EXPERTS*TOKEN_BITS-1:0] lengths,

    output logic [ENGINES-1:0] start_valid,
    input  logic [ENGINES-1:0] start_ready,
    output logic [ENGINES*TOKEN_BITS-1:0] start_rows,
    output logic [ENGINES*JOB_BITS-1:0] start_job,
    input  logic [ENGINES-1:0] done,

    output logic idle  // no job is left
);

  localparam int NOTE_BITS = ENGINES + 1 + EXPERT_BITS + TOKEN_BITS + ENGINES * COUNT_BITS + JOB_BITS;
  logic [ENGINES*COUNT_BITS-1:0] given;  // jobs of each engine that have come
  logic [ENGINES*COUNT_BITS-1:0] ended;
  logic [ENGINES-1:0] queue_ready;
  logic [ENGINES-1:0] queue_empty;
  logic [ENGINES-1:0] engine_busy;
  logic [NOTE_BITS-1:0] note;

`ifndef SYNTHESIS
  logic past_valid;
  initial past_valid = 1'b0;
`endif

  assign job_ready = queue_ready[job_engine];
  assign note = {job_waits, job_skips, job_index, job_rows, given, job};
  assign idle = &queue_empty && engine_busy == '0;

  for (genvar engine = 0; engine < ENGINES; engine++) begin : g_engine
    logic comes;
    logic here;
    logic taken;
    logic [ENGINES-1:0] waits;
    logic skips;
    logic [EXPERT_BITS-1:0] index;
    logic [TOKEN_BITS-1:0] rows;
    logic [TOKEN_BITS-1:0] length;
    logic [ENGINES*COUNT_BITS-1:0] needed;
    logic [ENGINES-1:0] blocked;
    logic may_start;
    logic skipped;
    logic [1:0] held;  // jobs in the queue
    logic [NOTE_BITS-1:0] front;
    logic [NOTE_BITS-1:0] back;

    assign comes = job_valid && job_ready && job_engine == ENGINE_BITS'(engine);
    assign here = held != 2'd0;
    assign queue_ready[engine] = held != 2'd2;
    assign {waits, skips, index, rows, needed, start_job[engine*JOB_BITS+:JOB_BITS]} = front;

    always_ff @(posedge ap_clk)
      if (!ap_rst_n || restart) held <= '0;
      else held <= held + 2'(comes) - 2'(taken);

    always_ff @(posedge ap_clk) begin
      if (comes && (held == 2'd0 || (held == 2'd1 && taken))) front <= note;
      else if (taken) front <= back;
      if (comes) back <= note;
    end

    for (genvar other = 0; other < ENGINES; other++) begin : g_wait
      assign blocked[other] = waits[other] && ended[other*COUNT_BITS+:COUNT_BITS] < needed[other*COUNT_BITS+:COUNT_BITS];
    end

    assign length = lengths[32'(index)*TOKEN_BITS+:TOKEN_BITS];
    assign may_start = here && !engine_busy[engine] && blocked == '0;
    assign skipped = may_start && skips && length == '0;
    assign start_valid[engine] = may_start && !skipped;
    assign start_rows[engine*TOKEN_BITS+:TOKEN_BITS] = rows == '0 ? length : rows;
    assign taken = skipped || (start_valid[engine] && start_ready[engine]);
    assign queue_empty[engine] = !here;

    always_ff @(posedge ap_clk)
      if (!ap_rst_n || restart) begin
        engine_busy[engine] <= 1'b0;
        given[engine*COUNT_BITS+:COUNT_BITS] <= '0;
        ended[engine*COUNT_BITS+:COUNT_BITS] <= '0;
      end else begin
        if (start_valid[engine] && start_ready[engine]) engine_busy[engine] <= 1'b1;
        else if (done[engine]) engine_busy[engine] <= 1'b0;
        if (comes) given[engine*COUNT_BITS+:COUNT_BITS] <= given[engine*COUNT_BITS+:COUNT_BITS] + 1'b1;
        if (done[engine] || skipped) ended[engine*COUNT_BITS+:COUNT_BITS] <= ended[engine*COUNT_BITS+:COUNT_BITS] + 1'b1;
      end

`ifndef SYNTHESIS
    // Every job that came is in the queue, in the engine, or has ended.
    logic [COUNT_BITS-1:0] under_way;
    assign under_way = given[engine*COUNT_BITS+:COUNT_BITS] - ended[engine*COUNT_BITS+:COUNT_BITS];
    always_ff @(posedge ap_clk)
      if (ap_rst_n && !restart) begin
        if (done[engine]) assume (engine_busy[engine]);
        if (comes) assume (given[engine*COUNT_BITS+:COUNT_BITS] != '1);
        if (past_valid) begin
          assert (ended[engine*COUNT_BITS+:COUNT_BITS] <= given[engine*COUNT_BITS+:COUNT_BITS]);
          assert (32'(under_way) == 32'(held) + 32'(engine_busy[engine]));
          assert (held <= 2'd2);
        end
      end
`endif
  end

`ifndef SYNTHESIS
  always_ff @(posedge ap_clk) begin
    past_valid <= ap_rst_n;
    /* verilator lint_off CMPCONST */
    if (ap_rst_n && job_valid) assume (32'(job_engine) < ENGINES);
    /* verilator lint_on CMPCONST */
  end
`endif
`ifdef FORMAL
  // Any one job of engine 0 that waits for engine 1: when it starts, as many jobs of engine 1 have ended as had come before it.
  (* anyseq *) logic chosen;
  logic watched;
  logic second;  // another job stands before it
  logic [COUNT_BITS-1:0] owed;  // jobs of engine 1 that must end before it starts
  logic [NOTE_BITS-1:0] watched_note;
  logic [COUNT_BITS-1:0] needed_of_watched;
  logic ends;
  logic [COUNT_BITS-1:0] left;
  assign left = given[COUNT_BITS+:COUNT_BITS] - ended[COUNT_BITS+:COUNT_BITS];
  assign ends = done[1] || g_engine[1].skipped;
  assign watched_note = second ? g_engine[0].back : g_engine[0].front;
  assign needed_of_watched = watched_note[JOB_BITS+COUNT_BITS+:COUNT_BITS];
  initial assume (!ap_rst_n);
  always_ff @(posedge ap_clk)
    if (!ap_rst_n || restart) begin
      watched <= 1'b0;
    end else if (!watched && g_engine[0].comes && job_waits[1] && chosen) begin
      watched <= 1'b1;
      second  <= g_engine[0].held == 2'd1 && !g_engine[0].taken;
      owed    <= given[COUNT_BITS+:COUNT_BITS] - ended[COUNT_BITS+:COUNT_BITS] - COUNT_BITS'(ends);
    end else if (watched) begin
      if (g_engine[0].taken) second <= 1'b0;
      if (g_engine[0].taken && !second) watched <= 1'b0;
      if (ends && owed != '0) owed <= owed - 1'b1;
    end
  always_ff @(posedge ap_clk)
    if (ap_rst_n && past_valid && !restart && watched) begin
      if (!second && g_engine[0].taken) assert (owed == '0);
      // For the induction.
      assert (second ? g_engine[0].held == 2'd2 : g_engine[0].held != 2'd0);
      assert (watched_note[NOTE_BITS-ENGINES+1]);
      if (owed != '0) assert (needed_of_watched == ended[COUNT_BITS+:COUNT_BITS] + owed);
      else assert (needed_of_watched <= ended[COUNT_BITS+:COUNT_BITS]);
      assert (owed <= left);
      assert (needed_of_watched <= given[COUNT_BITS+:COUNT_BITS]);
    end
`endif

endmodule
