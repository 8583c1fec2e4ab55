// The job table on chip: loaded at the start of a call, then offered twice, to the weight fetcher and to the scoreboard.
//
// The table is the first section of the weight image, records of 64 bytes side by side; the record of engine OUTPUT is its last. To
// load it, `fetch_job` first offers jobs of this module's own: engine OUTPUT, which has no parameters otherwise, with
// the beats that are wanted. One asks for the first record, whose `first` is where the table ends; the other for the rest. Their
// beats come back as `beat`. Then the table's records follow, on both streams, as they come in.
//
// A table that holds a record of another version, has more than JOBS records, or does not end with engine OUTPUT stops the
// loading and sets a flag until the next `restart`: nothing more is offered, and its beats are still taken.
module edgemoe_job_memory
  import edgemoe_job_pkg::*;
#(
    parameter int BEAT_BITS = 512,
    parameter int JOBS = 256,
    parameter int LATENCY = 2,
    parameter STYLE = "block"
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic restart,  // a new call: the table is read again

    input  logic beat_valid,
    output logic beat_ready,
    input  logic [BEAT_BITS-1:0] beat,

    output logic fetch_valid,  // to the weight fetcher
    input  logic fetch_ready,
    output job_t fetch_job,
    output logic issue_valid,  // to the scoreboard
    input  logic issue_ready,
    output job_t issue_job,

    output logic all_issued,  // the job of engine OUTPUT has been taken from `issue`
    output logic bad_version,
    output logic overflow  // too many records, or no end
);

  // Beats and records in their largest common part: a power of two, as every port has such a width.
  localparam int LOWEST_BIT = BEAT_BITS & -BEAT_BITS;
  localparam int UNIT_BITS = LOWEST_BIT < JOB_BITS ? LOWEST_BIT : JOB_BITS;
  localparam int BEAT_UNITS = BEAT_BITS / UNIT_BITS;
  localparam int RECORD_UNITS = JOB_BITS / UNIT_BITS;
  localparam int LEFT_BITS = $clog2(BEAT_UNITS + 1);
  localparam int UNIT_COUNT_BITS = RECORD_UNITS > 1 ? $clog2(RECORD_UNITS) : 1;
  localparam int COUNT_BITS = $clog2(JOBS + 1);
  localparam int ADDRESS_BITS = JOBS > 1 ? $clog2(JOBS) : 1;
  localparam logic [31:0] FIRST_BEATS = 32'((JOB_BITS + BEAT_BITS - 1) / BEAT_BITS);
  localparam logic [31:0] MOST_BEATS = 32'((JOBS * JOB_BITS + BEAT_BITS - 1) / BEAT_BITS);

  // ---- Beats are taken apart, and records put together, a unit a cycle.

  logic [BEAT_BITS-1:0] held;
  logic [LEFT_BITS-1:0] held_units;
  logic [UNIT_COUNT_BITS-1:0] units;  // of the record that have come
  logic last_unit;
  logic comes;  // a record, whole
  job_t record;
  logic taken;

  /* verilator lint_off CMPCONST */
  assign beat_ready = held_units <= LEFT_BITS'(1);
  assign last_unit = units == UNIT_COUNT_BITS'(RECORD_UNITS - 1);
  /* verilator lint_on CMPCONST */
  assign taken = beat_valid && beat_ready;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n || restart) begin
      held_units <= '0;
      units <= '0;
      comes <= 1'b0;
    end else begin
      if (taken) held_units <= LEFT_BITS'(BEAT_UNITS);
      else if (held_units != '0) held_units <= held_units - 1'b1;
      if (held_units != '0) units <= last_unit ? '0 : units + 1'b1;
      comes <= held_units != '0 && last_unit;
    end

  if (BEAT_UNITS == 1) begin : g_beat
    always_ff @(posedge ap_clk) if (taken) held <= beat;
  end else begin : g_beat_parts
    always_ff @(posedge ap_clk) held <= taken ? beat : held >> UNIT_BITS;
  end
  if (RECORD_UNITS == 1) begin : g_whole
    always_ff @(posedge ap_clk) if (held_units != '0) record <= job_t'(held[UNIT_BITS-1:0]);
  end else begin : g_part
    always_ff @(posedge ap_clk)
      if (held_units != '0) record <= job_t'({held[UNIT_BITS-1:0], record[JOB_BITS-1:UNIT_BITS]});
  end

  // ---- Records are kept until that of engine OUTPUT has come.

  logic keeping;
  logic measured;  // the first record has come
  logic offering;
  logic [COUNT_BITS-1:0] count;
  logic [31:0] owed;  // beats that were asked for and have not come
  logic [31:0] more;  // beats behind the first
  logic keeps;
  logic measures;
  logic wrong_version;
  logic too_many;
  logic no_end;
  logic ends;

  assign keeps = comes && keeping;
  assign measures = keeps && !measured;
  assign wrong_version = keeps && record.version != JOB_VERSION;
  assign too_many = keeps && (count == COUNT_BITS'(JOBS) || (!measured && record.first > MOST_BEATS));
  // All has come, and nothing that ends a table.
  assign no_end = keeping && measured && owed == '0 && held_units == '0 && !comes;
  assign ends = keeps && !wrong_version && !too_many && record.engine == OUTPUT;
  assign more = record.first > FIRST_BEATS ? record.first - FIRST_BEATS : '0;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n || restart) begin
      keeping <= restart;
      measured <= 1'b0;
      offering <= 1'b0;
      bad_version <= 1'b0;
      overflow <= 1'b0;
      count <= '0;
      owed <= FIRST_BEATS;
    end else begin
      if (wrong_version || too_many || no_end || ends) keeping <= 1'b0;
      if (keeps) measured <= 1'b1;
      if (ends) offering <= 1'b1;
      if (wrong_version) bad_version <= 1'b1;
      if (!wrong_version && (too_many || no_end)) overflow <= 1'b1;
      if (keeps) count <= count + 1'b1;
      if (keeping) owed <= owed - 32'(taken) + (measures ? more : '0);
    end

  // ---- Two readers, one port: each has a job in its register, and fetches the next when that is taken.

  logic [COUNT_BITS-1:0] fetch_next;
  logic [COUNT_BITS-1:0] issue_next;
  logic fetch_reads;
  logic issue_reads;
  logic fetch_arrives;
  logic issue_arrives;
  logic fetch_waits;
  logic issue_waits;
  logic unused_fetch_line;
  logic unused_issue_line;
  logic [JOB_BITS-1:0] read_record;

  edgemoe_memory #(.WIDTH(JOB_BITS), .DEPTH(JOBS), .LATENCY(LATENCY), .STYLE(STYLE)) table_memory (
      .ap_clk(ap_clk),
      .write_enable(keeps && !too_many),
      .write_address(ADDRESS_BITS'(count)),
      .write_data(record),
      .ce(1'b1),
      .read_address(ADDRESS_BITS'(fetch_reads ? fetch_next : issue_next)),
      .read_data(read_record)
  );

  assign fetch_reads = offering && !fetch_valid && !fetch_waits && fetch_next != count;
  assign issue_reads = offering && !issue_valid && !issue_waits && issue_next != count && !fetch_reads;
  assign all_issued = offering && issue_next == count && !issue_valid && !issue_waits;

  edgemoe_valid_delay #(.CYCLES(LATENCY)) fetch_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n && !restart),
      .ce(1'b1),
      .in(fetch_reads),
      .out(fetch_arrives),
      .any(unused_fetch_line)
  );
  edgemoe_valid_delay #(.CYCLES(LATENCY)) issue_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n && !restart),
      .ce(1'b1),
      .in(issue_reads),
      .out(issue_arrives),
      .any(unused_issue_line)
  );

  always_ff @(posedge ap_clk)
    if (!ap_rst_n || restart) begin
      fetch_next <= '0;
      fetch_waits <= 1'b0;
      issue_next <= '0;
      issue_waits <= 1'b0;
      issue_valid <= 1'b0;
      fetch_valid <= restart;
    end else begin
      if (fetch_reads) fetch_next <= fetch_next + 1'b1;
      if (fetch_reads || fetch_arrives) fetch_waits <= fetch_reads;
      if (issue_reads) issue_next <= issue_next + 1'b1;
      if (issue_reads || issue_arrives) issue_waits <= issue_reads;
      if (fetch_arrives || (measures && !wrong_version && !too_many && !ends && more != '0)) fetch_valid <= 1'b1;
      else if (fetch_ready) fetch_valid <= 1'b0;
      if (issue_arrives) issue_valid <= 1'b1;
      else if (issue_ready) issue_valid <= 1'b0;
    end

  job_t own;  // a job that asks for beats of the table
  always_comb begin
    own = '0;
    own.version = JOB_VERSION;
    own.engine = OUTPUT;
    own.first = restart ? '0 : FIRST_BEATS;
    own.beats = restart ? FIRST_BEATS : more;
  end

  always_ff @(posedge ap_clk) begin
    if (restart || measures) fetch_job <= own;
    else if (fetch_arrives) fetch_job <= job_t'(read_record);
    if (issue_arrives) issue_job <= job_t'(read_record);
  end

`ifndef SYNTHESIS
  initial assert (JOB_BITS % UNIT_BITS == 0 && $bits(record) == JOB_BITS);
  logic past_valid;
  initial past_valid = 1'b0;
  always_ff @(posedge ap_clk) begin
    past_valid <= ap_rst_n && !restart;
    if (ap_rst_n && !restart && past_valid) begin
      if ($past(fetch_valid && !fetch_ready)) assert (fetch_valid && $stable(fetch_job));
      if ($past(issue_valid && !issue_ready)) assert (issue_valid && $stable(issue_job));
      assert (!(keeping && offering) && 32'(count) <= JOBS);
      // Its own jobs have been taken before their beats can come.
      if (measures) assert (!fetch_valid);
      if (keeping && taken) assume (owed != '0);
    end
  end
`endif

endmodule
