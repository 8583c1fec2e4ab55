// Engine OUTPUT: the residual stream of all images to memory, as 32-bit numbers.
//
// A word has WORD_BEATS beats, and starts on a beat of its own; what is left of its last beat is 0. Words come READ
// cycles after they are asked for. `done` is one cycle, once memory has answered the last write.
module edgemoe_output
  import edgemoe_job_pkg::*;
#(
    parameter int LANES = 4,
    parameter int RESIDUAL_BITS = 24,
    parameter int PORT_BITS = 64,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 8,
    parameter int READ = 4,
    parameter int MAX_BURST = 64,
    parameter int OUTSTANDING = 8,
    localparam int WORD_BEATS = (32 * LANES + PORT_BITS - 1) / PORT_BITS
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic [63:0] address,  // of the result, while a job runs

    input  logic start_valid,
    output logic start_ready,
    input  job_t start_job,
    input  logic [TOKEN_BITS-1:0] start_rows,  // of all images
    output logic done,

    output logic read_enable,
    output logic [TOKEN_BITS-1:0] read_token,
    output logic [WORD_BITS-1:0] read_word,
    input  logic [LANES*RESIDUAL_BITS-1:0] read_data,

    output logic failed,  // a write failed since the last reset

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
    input  logic [1:0] m_axi_BRESP,
    input  logic m_axi_BVALID,
    output logic m_axi_BREADY
);

  localparam int STORED = 32;
  localparam int PLACES = 2 ** $clog2(READ + 4);  // of words that were asked for
  localparam int CREDIT_BITS = $clog2(PLACES + 1);
  localparam int PART_BITS = WORD_BEATS > 1 ? $clog2(WORD_BEATS) : 1;

  logic busy;
  logic reading;
  logic [TOKEN_BITS-1:0] rows_left;
  logic [WORD_BITS-1:0] words;
  logic [WORD_BITS-1:0] words_left;
  logic last_word;
  logic command_valid;
  logic command_ready;
  logic [31:0] command_beats;
  logic asked;  // the writes have been commanded
  logic master_idle;
  wire unused_job = &{1'b0, start_job};

  assign start_ready = !busy;
  assign last_word = words_left == WORD_BITS'(1);
  assign done = busy && asked && master_idle;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      busy <= 1'b0;
      reading <= 1'b0;
      asked <= 1'b0;
    end else begin
      if (start_valid && start_ready) busy <= 1'b1;
      else if (done) busy <= 1'b0;
      if (start_valid && start_ready) reading <= 1'b1;
      else if (read_enable && last_word && rows_left == TOKEN_BITS'(1)) reading <= 1'b0;
      if (command_valid && command_ready) asked <= 1'b1;
      else if (done) asked <= 1'b0;
    end

  edgemoe_stretch #(.TOKEN_BITS(TOKEN_BITS), .WORD_BITS(WORD_BITS), .WORD_BEATS(WORD_BEATS)) stretch (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .start(start_valid && start_ready),
      .rows(start_rows),
      .words(WORD_BITS'(start_job.words)),
      .command_valid(command_valid),
      .command_ready(command_ready),
      .command_beats(command_beats)
  );

  // ---- Words are asked for as long as the queue has places for all that are on their way.

  logic [CREDIT_BITS-1:0] credit;
  logic arrives;
  logic unused_busy;
  logic unused_ready;
  logic [$clog2(PLACES):0] unused_count;
  logic [LANES*RESIDUAL_BITS-1:0] word;
  logic word_valid;
  logic word_taken;
  wire unused = &{1'b0, unused_count};

  assign read_enable = reading && credit != '0;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) credit <= CREDIT_BITS'(PLACES);
    else credit <= credit - CREDIT_BITS'(read_enable) + CREDIT_BITS'(word_taken);

  always_ff @(posedge ap_clk)
    if (start_ready) begin
      rows_left <= start_rows;
      words <= WORD_BITS'(start_job.words);
      words_left <= WORD_BITS'(start_job.words);
      read_token <= '0;
      read_word <= '0;
    end else if (read_enable) begin
      words_left <= last_word ? words : words_left - 1'b1;
      read_word  <= last_word ? '0 : read_word + 1'b1;
      if (last_word) begin
        read_token <= read_token + 1'b1;
        rows_left  <= rows_left - 1'b1;
      end
    end

  edgemoe_valid_delay #(.CYCLES(READ)) read_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(read_enable),
      .out(arrives),
      .any(unused_busy)
  );
  edgemoe_fifo #(.WIDTH(LANES * RESIDUAL_BITS), .DEPTH(PLACES)) queue (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .in_data(read_data),
      .in_valid(arrives),
      .in_ready(unused_ready),
      .out_data(word),
      .out_valid(word_valid),
      .out_ready(word_taken),
      .count(unused_count)
  );

  // ---- A word leaves beat by beat.

  logic [WORD_BEATS*PORT_BITS-1:0] wide;
  logic [WORD_BEATS*PORT_BITS-1:0] rest;
  logic rest_valid;
  logic [PART_BITS-1:0] part;
  logic last_part;
  logic beat_ready;

  always_comb begin
    wide = '0;
    for (int lane = 0; lane < LANES; lane++)
      wide[lane*STORED+:STORED] = STORED'($signed(word[lane*RESIDUAL_BITS+:RESIDUAL_BITS]));
  end

  assign last_part = part == PART_BITS'(WORD_BEATS - 1);
  assign word_taken = word_valid && (!rest_valid || (beat_ready && last_part));

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) rest_valid <= 1'b0;
    else if (word_taken) rest_valid <= 1'b1;
    else if (beat_ready && last_part) rest_valid <= 1'b0;

  always_ff @(posedge ap_clk)
    if (word_taken) begin
      part <= '0;
    end else if (rest_valid && beat_ready) begin
      part <= part + 1'b1;
    end

  if (WORD_BEATS == 1) begin : g_whole
    always_ff @(posedge ap_clk) if (word_taken) rest <= wide;
  end else begin : g_parts
    always_ff @(posedge ap_clk)
      if (word_taken) rest <= wide;
      else if (rest_valid && beat_ready) rest <= rest >> PORT_BITS;
  end

  edgemoe_axi_write #(.DATA_BITS(PORT_BITS), .MAX_BURST(MAX_BURST), .OUTSTANDING(OUTSTANDING)) master (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .command_valid(command_valid),
      .command_ready(command_ready),
      .command_address(address),
      .command_beats(command_beats),
      .in_valid(rest_valid),
      .in_ready(beat_ready),
      .in_data(rest[PORT_BITS-1:0]),
      .idle(master_idle),
      .failed(failed),
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

`ifndef SYNTHESIS
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      if (start_valid) begin
        assume (start_job.engine == OUTPUT && start_rows != '0);
        assume (start_job.words != '0 && 32'(start_job.words) < 2 ** WORD_BITS);
      end
      if (arrives) assert (unused_ready);
      if (done) assert (!reading && !word_valid && !rest_valid && credit == CREDIT_BITS'(PLACES));
    end
`endif

endmodule
