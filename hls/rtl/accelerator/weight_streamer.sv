// The weight image's beats, in the order of the job table, ahead of the jobs: fetcher, a read master for each port, the ring
// buffer that they fill, and the dispatcher.
//
// `restart` begins a call: it must find the streamer idle, with all that was asked for taken.
module edgemoe_weight_streamer
  import edgemoe_job_pkg::*;
#(
    parameter int PORTS = 4,
    parameter int PORT_BITS = 128,
    parameter int DEPTH = 1024,  // beats of the ring: a power of two
    parameter int CHUNK = 64,
    parameter int OUTSTANDING = 16,
    parameter int NOTES = 32,  // jobs that the fetcher may be ahead: a power of two
    parameter int EXPERTS = 16,
    parameter int LATENCY = 2,
    parameter STYLE = "block"
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic restart,
    input  logic [PORTS*64-1:0] addresses,  // of each port's share of the weight image
    input  logic [15:0] task_number,
    input  logic speculate,
    input  logic [15:0] decided,
    input  logic [EXPERTS-1:0] active,

    input  logic job_valid,
    output logic job_ready,
    input  job_t job,

    output logic load_valid,
    input  logic load_ready,
    output job_t load_job,
    output logic beat_valid,
    input  logic beat_ready,
    output logic [PORTS*PORT_BITS-1:0] beat_data,
    output logic beat_last,

    output logic idle,  // nothing is under way
    output logic failed,  // a read failed since the last reset

    output logic [PORTS*64-1:0] m_axi_ARADDR,
    output logic [PORTS*8-1:0] m_axi_ARLEN,
    output logic [PORTS*3-1:0] m_axi_ARSIZE,
    output logic [PORTS*2-1:0] m_axi_ARBURST,
    output logic [PORTS-1:0] m_axi_ARVALID,
    input  logic [PORTS-1:0] m_axi_ARREADY,
    input  logic [PORTS*PORT_BITS-1:0] m_axi_RDATA,
    input  logic [PORTS*2-1:0] m_axi_RRESP,
    input  logic [PORTS-1:0] m_axi_RLAST,
    input  logic [PORTS-1:0] m_axi_RVALID,
    output logic [PORTS-1:0] m_axi_RREADY
);

  localparam int FREE_BITS = $clog2(DEPTH) + 2;
  localparam int PORT_BYTES = PORT_BITS / 8;

  logic note_in_valid;
  logic note_in_ready;
  logic note_valid;
  logic note_ready;
  job_t note_in;
  job_t note;
  logic asked_in_valid;
  logic asked_in_ready;
  logic asked_valid;
  logic asked_ready;
  logic [31:0] asked_in;
  logic [31:0] asked;
  logic [FREE_BITS-1:0] free;
  logic fetch_valid;
  logic fetch_ready;
  logic fetch_asks;
  logic [31:0] fetch_first;
  logic [FREE_BITS-1:0] fetch_beats;
  logic take_valid;
  logic take_ready;
  logic take_drops;
  logic [31:0] take_beats;
  logic ring_valid;
  logic ring_ready;
  logic [PORTS-1:0] ports_ready;
  logic [PORTS-1:0] ports_idle;
  logic [PORTS-1:0] ports_failed;
  logic [PORTS-1:0] push;
  logic [PORTS*PORT_BITS-1:0] push_data;
  logic [$clog2(NOTES):0] note_count;
  logic [$clog2(NOTES):0] unused_count;
  wire unused = &{1'b0, unused_count};

  edgemoe_weight_fetcher #(.CHUNK(CHUNK), .FREE_BITS(FREE_BITS), .EXPERTS(EXPERTS)) fetcher (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .restart(restart),
      .task_number(task_number),
      .speculate(speculate),
      .decided(decided),
      .active(active),
      .job_valid(job_valid),
      .job_ready(job_ready),
      .job(job),
      .note_valid(note_in_valid),
      .note_ready(note_in_ready),
      .note(note_in),
      .asked_valid(asked_in_valid),
      .asked_ready(asked_in_ready),
      .asked_beats(asked_in),
      .free(free),
      .command_valid(fetch_valid),
      .command_ready(fetch_ready),
      .command_first(fetch_first),
      .command_beats(fetch_beats)
  );

  // A chunk goes to all ports at once.
  assign fetch_ready = &ports_ready;
  assign fetch_asks = fetch_valid && fetch_ready;

  for (genvar port = 0; port < PORTS; port++) begin : g_port
    logic [63:0] address;
    logic [FREE_BITS-1:0] beats;
    logic valid;
    logic ready;
    logic [2:0] count;

    edgemoe_fifo #(.WIDTH(64 + FREE_BITS), .DEPTH(4)) commands (
        .ap_clk(ap_clk),
        .ap_rst_n(ap_rst_n),
        .in_data({addresses[port*64+:64] + 64'(fetch_first) * 64'(PORT_BYTES), fetch_beats}),
        .in_valid(fetch_asks),
        .in_ready(ports_ready[port]),
        .out_data({address, beats}),
        .out_valid(valid),
        .out_ready(ready),
        .count(count)
    );

    logic master_idle;
    assign ports_idle[port] = master_idle && count == '0;

    edgemoe_axi_read #(
        .DATA_BITS(PORT_BITS),
        .COUNT_BITS(FREE_BITS),
        .OUTSTANDING(OUTSTANDING),
        .MAX_BURST(CHUNK)
    ) master (
        .ap_clk(ap_clk),
        .ap_rst_n(ap_rst_n),
        .command_valid(valid),
        .command_ready(ready),
        .command_address(address),
        .command_beats(beats),
        .out_valid(push[port]),
        .out_ready(1'b1),
        .out_data(push_data[port*PORT_BITS+:PORT_BITS]),
        .idle(master_idle),
        .failed(ports_failed[port]),
        .m_axi_ARADDR(m_axi_ARADDR[port*64+:64]),
        .m_axi_ARLEN(m_axi_ARLEN[port*8+:8]),
        .m_axi_ARSIZE(m_axi_ARSIZE[port*3+:3]),
        .m_axi_ARBURST(m_axi_ARBURST[port*2+:2]),
        .m_axi_ARVALID(m_axi_ARVALID[port]),
        .m_axi_ARREADY(m_axi_ARREADY[port]),
        .m_axi_RDATA(m_axi_RDATA[port*PORT_BITS+:PORT_BITS]),
        .m_axi_RRESP(m_axi_RRESP[port*2+:2]),
        .m_axi_RLAST(m_axi_RLAST[port]),
        .m_axi_RVALID(m_axi_RVALID[port]),
        .m_axi_RREADY(m_axi_RREADY[port])
    );
  end

  assign failed = |ports_failed;
  assign idle = &ports_idle && note_count == '0 && free == FREE_BITS'(DEPTH);

  edgemoe_ring_buffer #(
      .PORTS(PORTS),
      .WIDTH(PORT_BITS),
      .DEPTH(DEPTH),
      .COUNT_BITS(32),
      .LATENCY(LATENCY),
      .STYLE(STYLE)
  ) ring (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .free(free),
      .reserve(fetch_asks),
      .reserve_beats(fetch_beats),
      .push(push),
      .push_data(push_data),
      .command_valid(take_valid),
      .command_ready(take_ready),
      .command_drops(take_drops),
      .command_beats(take_beats),
      .out_valid(ring_valid),
      .out_ready(ring_ready),
      .out_data(beat_data)
  );

  edgemoe_fifo #(.WIDTH(JOB_BITS), .DEPTH(NOTES)) notes (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .in_data(note_in),
      .in_valid(note_in_valid),
      .in_ready(note_in_ready),
      .out_data(note),
      .out_valid(note_valid),
      .out_ready(note_ready),
      .count(note_count)
  );
  edgemoe_fifo #(.WIDTH(32), .DEPTH(NOTES)) asked_notes (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .in_data(asked_in),
      .in_valid(asked_in_valid),
      .in_ready(asked_in_ready),
      .out_data(asked),
      .out_valid(asked_valid),
      .out_ready(asked_ready),
      .count(unused_count)
  );

  edgemoe_weight_dispatcher #(.EXPERTS(EXPERTS)) dispatcher (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .restart(restart),
      .decided(decided),
      .active(active),
      .note_valid(note_valid),
      .note_ready(note_ready),
      .note(note),
      .asked_valid(asked_valid),
      .asked_ready(asked_ready),
      .asked_beats(asked),
      .command_valid(take_valid),
      .command_ready(take_ready),
      .command_drops(take_drops),
      .command_beats(take_beats),
      .ring_valid(ring_valid),
      .ring_ready(ring_ready),
      .load_valid(load_valid),
      .load_ready(load_ready),
      .load_job(load_job),
      .beat_valid(beat_valid),
      .beat_ready(beat_ready),
      .beat_last(beat_last)
  );

`ifndef SYNTHESIS
  initial assert ($bits(job_t) == JOB_BITS);
`endif

endmodule
