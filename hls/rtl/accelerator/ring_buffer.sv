// A deep buffer between read masters and those who use their beats: a slice for each port, and one order for all.
//
// Places are reserved for beats before they are asked for, so that a port's word is never refused (`push`). A beat is
// whole once every port has delivered its word; ports may drift apart as far as there are places. Beats leave in their
// order, by commands: take `count` beats, or drop them. Dropping takes one cycle, whether the beats have come or
// not: those that have not vanish as they come, but they must have been reserved. The next beats to be dropped wait
// until these have come.
module edgemoe_ring_buffer #(
    parameter int PORTS = 2,
    parameter int WIDTH = 8,  // of a port's word
    parameter int DEPTH = 16,  // beats: a power of two
    parameter int COUNT_BITS = 32,  // of a command
    parameter int LATENCY = 2,  // of the memory
    /* verilator lint_off UNUSEDPARAM */
    parameter STYLE = "block",
    /* verilator lint_on UNUSEDPARAM */
    localparam int PLACE_BITS = $clog2(DEPTH) + 2
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    output logic [PLACE_BITS-1:0] free,  // beats that can be reserved
    input  logic reserve,
    input  logic [PLACE_BITS-1:0] reserve_beats,  // at most `free`

    input  logic [PORTS-1:0] push,
    input  logic [PORTS*WIDTH-1:0] push_data,

    input  logic command_valid,
    output logic command_ready,
    input  logic command_drops,
    input  logic [COUNT_BITS-1:0] command_beats,

    output logic out_valid,
    input  logic out_ready,
    output logic [PORTS*WIDTH-1:0] out_data
);

  localparam int ADDRESS_BITS = $clog2(DEPTH);
  // Places are counted modulo four times the depth: a port may be behind what was dropped, or before what is read.
  logic [PLACE_BITS-1:0] reserved;  // behind the last beat that was asked for
  logic [PLACE_BITS-1:0] next;  // the next beat to leave
  logic [PORTS-1:0] behind;  // ports that have not delivered it
  logic [PORTS-1:0] owes;  // ports that have not delivered all that was dropped
  logic [PORTS*PLACE_BITS-1:0] delivered;

  logic [PLACE_BITS-1:0] occupied;
  assign occupied = reserved - next;
  assign free = PLACE_BITS'(DEPTH) - occupied;

  for (genvar port = 0; port < PORTS; port++) begin : g_port
    logic [PLACE_BITS-1:0] here;  // the place of the port's next word
    logic [PLACE_BITS-1:0] ahead;
    assign ahead = here - next;
    assign owes[port] = ahead[PLACE_BITS-1];
    assign behind[port] = ahead == '0 || owes[port];
    assign delivered[port*PLACE_BITS+:PLACE_BITS] = here;

    always_ff @(posedge ap_clk)
      if (!ap_rst_n) here <= '0;
      else if (push[port]) here <= here + 1'b1;
  end

  // ---- Commands: how many beats are still to leave.

  logic [COUNT_BITS-1:0] left;
  logic drops;
  logic reads;
  logic last_read;
  logic dropping;

  assign dropping = drops && left != '0 && owes == '0;
  assign last_read = reads && left == COUNT_BITS'(1);
  assign command_ready = left == '0 || last_read || dropping;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      left  <= '0;
      drops <= 1'b0;
    end else if (command_ready) begin
      left  <= command_valid ? command_beats : '0;
      drops <= command_drops;
    end else if (reads) begin
      left <= left - 1'b1;
    end

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      reserved <= '0;
      next <= '0;
    end else begin
      if (reserve) reserved <= reserved + reserve_beats;
      if (dropping) next <= next + PLACE_BITS'(left);
      else if (reads) next <= next + 1'b1;
    end

`ifndef SYNTHESIS
  logic past_valid;
  initial past_valid = 1'b0;
`endif

  // ---- Reading: no more words on their way than the queue at the output has places.

  localparam int QUEUE = LATENCY < 3 ? 4 : 8;
  localparam int QUEUE_BITS = $clog2(QUEUE) + 1;
  logic [QUEUE_BITS-1:0] waiting;
  logic [QUEUE_BITS-1:0] credit;  // places of the queue that no word is on its way to
  logic arrives;
  logic [LATENCY-1:0] on_way;
  logic unused_ready;
  logic [PORTS*WIDTH-1:0] word;

  assign reads = left != '0 && !drops && behind == '0 && credit != '0;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) credit <= QUEUE_BITS'(QUEUE);
    else credit <= credit - QUEUE_BITS'(reads) + QUEUE_BITS'(out_valid && out_ready);

  for (genvar port = 0; port < PORTS; port++) begin : g_slice
    // As in `edgemoe_memory`, but here, where the proof sees the words.
    (* ram_style = STYLE *) logic [WIDTH-1:0] words[DEPTH];
    logic [WIDTH-1:0] first;

    always_ff @(posedge ap_clk) begin
      if (push[port]) words[delivered[port*PLACE_BITS+:ADDRESS_BITS]] <= push_data[port*WIDTH+:WIDTH];
      first <= words[next[ADDRESS_BITS-1:0]];
    end
    edgemoe_delay #(.WIDTH(WIDTH), .CYCLES(LATENCY - 1)) registers (
        .ap_clk(ap_clk),
        .ce(1'b1),
        .in(first),
        .out(word[port*WIDTH+:WIDTH])
    );

`ifdef FORMAL
    // Each word says its place: in the memory, and when it arrives. WIDTH is PLACE_BITS here.
    (* anyconst *) logic [PLACE_BITS-1:0] place;
    logic [PLACE_BITS-1:0] here;
    assign here = delivered[port*PLACE_BITS+:PLACE_BITS];
    always_comb assume (push_data[port*WIDTH+:WIDTH] == here);
    always_ff @(posedge ap_clk)
      if (ap_rst_n && past_valid) begin
        if (!owes[port] && place - next < here - next) assert (words[place[ADDRESS_BITS-1:0]] == place);
        if (arrives && $past(next, LATENCY) == place) assert (word[port*WIDTH+:WIDTH] == place);
      end
`endif
  end

  // The word of a beat that is read now arrives LATENCY cycles later.
  assign arrives = on_way[LATENCY-1];
  always_ff @(posedge ap_clk)
    if (!ap_rst_n) on_way <= '0;
    else on_way <= LATENCY'({on_way, reads});

  edgemoe_fifo #(.WIDTH(PORTS * WIDTH), .DEPTH(QUEUE)) queue (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .in_data(word),
      .in_valid(arrives),
      .in_ready(unused_ready),
      .out_data(out_data),
      .out_valid(out_valid),
      .out_ready(out_ready),
      .count(waiting)
  );
  wire unused = &{1'b0, waiting, unused_ready};

`ifndef SYNTHESIS
  initial assert (DEPTH == 2 ** ADDRESS_BITS);

  always_ff @(posedge ap_clk) begin
    past_valid <= ap_rst_n;
    if (ap_rst_n && reserve) assume (reserve_beats <= free);
    if (ap_rst_n && dropping) assume (left <= COUNT_BITS'(occupied));
    if (ap_rst_n && past_valid) begin
      assert (occupied <= PLACE_BITS'(DEPTH));
      assert (!arrives || unused_ready);
      assert (!reads || occupied != '0);
      if ($past(out_valid && !out_ready)) assert (out_valid && $stable(out_data));
    end
  end
  for (genvar port = 0; port < PORTS; port++) begin : g_check
    logic [PLACE_BITS-1:0] here;
    assign here = delivered[port*PLACE_BITS+:PLACE_BITS];
    always_ff @(posedge ap_clk)
      if (ap_rst_n && push[port]) assume (here != reserved);
    always_ff @(posedge ap_clk)
      if (ap_rst_n && past_valid) begin
        assert (reserved - here <= PLACE_BITS'(2 * DEPTH));
        assert (here - next + PLACE_BITS'(DEPTH) <= PLACE_BITS'(2 * DEPTH));
      end
  end
`endif
`ifdef FORMAL
  initial assume (!ap_rst_n);
  // For the induction: every word on its way has a place in the queue.
  always_ff @(posedge ap_clk)
    if (ap_rst_n && past_valid) assert (32'(credit) + 32'(waiting) + 32'($countones(on_way)) == QUEUE);
`endif

endmodule
