// Engine PIXELS: patches of all images, from memory to the operand memory, a row a patch.
//
// A word is LANES bytes in WORD_BEATS beats, and starts on a beat of its own; PIXEL_OFFSET is subtracted from each byte. The
// images' beats follow each other from `address` on.
module edgemoe_pixels
  import edgemoe_job_pkg::*;
#(
    parameter int LANES = 4,
    parameter int X_BITS = 8,
    parameter int PIXEL_OFFSET = 128,
    parameter int PORT_BITS = 64,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 8,
    parameter int MAX_BURST = 64,
    parameter int OUTSTANDING = 16,
    localparam int WORD_BEATS = (8 * LANES + PORT_BITS - 1) / PORT_BITS
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic [63:0] address,  // of the images, while a job runs

    input  logic start_valid,
    output logic start_ready,
    input  job_t start_job,
    input  logic [TOKEN_BITS-1:0] start_rows,  // of all images
    output logic done,

    output logic write_enable,
    output logic [TOKEN_BITS-1:0] write_token,
    output logic [WORD_BITS-1:0] write_word,
    output logic [LANES*X_BITS-1:0] write_data,

    output logic failed,  // a read failed since the last reset

    output logic [63:0] m_axi_ARADDR,
    output logic [7:0] m_axi_ARLEN,
    output logic [2:0] m_axi_ARSIZE,
    output logic [1:0] m_axi_ARBURST,
    output logic m_axi_ARVALID,
    input  logic m_axi_ARREADY,
    input  logic [PORT_BITS-1:0] m_axi_RDATA,
    input  logic [1:0] m_axi_RRESP,
    input  logic m_axi_RLAST,
    input  logic m_axi_RVALID,
    output logic m_axi_RREADY
);

  logic busy;
  logic [TOKEN_BITS-1:0] rows_left;
  logic [WORD_BITS-1:0] words;
  logic [WORD_BITS-1:0] words_left;
  logic [WORD_BITS-1:0] first_word;
  logic [WORD_BITS-1:0] word_number;
  logic [TOKEN_BITS-1:0] row;
  logic last_word;
  logic ends;  // the last word has come
  logic command_valid;
  logic command_ready;
  logic [31:0] command_beats;
  logic beat_valid;
  logic [PORT_BITS-1:0] beat;
  logic complete;
  logic [WORD_BEATS*PORT_BITS-1:0] word;
  logic unused_idle;
  wire unused_bits = &{1'b0, start_job, word, unused_idle};

  assign start_ready = !busy;
  assign last_word = words_left == WORD_BITS'(1);
  assign ends = complete && last_word && rows_left == TOKEN_BITS'(1);

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      busy <= 1'b0;
      done <= 1'b0;
      write_enable <= 1'b0;
    end else begin
      done <= ends;
      write_enable <= complete;
      if (start_valid && start_ready) busy <= 1'b1;
      else if (done) busy <= 1'b0;
    end

  edgemoe_stretch #(.TOKEN_BITS(TOKEN_BITS), .WORD_BITS(WORD_BITS), .WORD_BEATS(WORD_BEATS)) stretch (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .start(start_valid && start_ready),
      .rows(start_rows),
      .words(WORD_BITS'(start_job.out_words)),
      .command_valid(command_valid),
      .command_ready(command_ready),
      .command_beats(command_beats)
  );
  edgemoe_axi_read #(.DATA_BITS(PORT_BITS), .MAX_BURST(MAX_BURST), .OUTSTANDING(OUTSTANDING)) master (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .command_valid(command_valid),
      .command_ready(command_ready),
      .command_address(address),
      .command_beats(command_beats),
      .out_valid(beat_valid),
      .out_ready(1'b1),
      .out_data(beat),
      .idle(unused_idle),
      .failed(failed),
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
  edgemoe_collector #(.WIDTH(PORT_BITS), .BEATS(WORD_BEATS)) collector (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .beat(beat),
      .valid(beat_valid),
      .restart(start_ready),
      .word(word),
      .complete(complete)
  );

  always_ff @(posedge ap_clk)
    if (start_ready) begin
      rows_left <= start_rows;
      words <= WORD_BITS'(start_job.out_words);
      words_left <= WORD_BITS'(start_job.out_words);
      first_word <= WORD_BITS'(start_job.destination_word);
      word_number <= WORD_BITS'(start_job.destination_word);
      row <= '0;
    end else if (complete) begin
      words_left  <= last_word ? words : words_left - 1'b1;
      word_number <= last_word ? first_word : word_number + 1'b1;
      if (last_word) begin
        row <= row + 1'b1;
        rows_left <= rows_left - 1'b1;
      end
    end

  always_ff @(posedge ap_clk) begin
    write_token <= row;
    write_word  <= word_number;
  end
  for (genvar lane = 0; lane < LANES; lane++) begin : g_lane
    always_ff @(posedge ap_clk)
      write_data[lane*X_BITS+:X_BITS] <= X_BITS'($signed({2'b00, word[lane*8+:8]}) - 10'(PIXEL_OFFSET));
  end

`ifndef SYNTHESIS
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      if (start_valid) begin
        assume (start_job.engine == PIXELS && start_rows != '0);
        assume (start_job.out_words != '0 && 32'(start_job.out_words) < 2 ** WORD_BITS);
      end
      if (beat_valid) assert (busy && rows_left != '0 && words_left != '0);
    end
`endif

endmodule
