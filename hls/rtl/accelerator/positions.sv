// Engine POSITIONS: the residual stream starts as the position table, the same for every image.
//
// The table's beats (those behind the header) come once a call; each of its words is written to all images, a cycle each. A word
// has WORD_BEATS beats of 32-bit numbers.
module edgemoe_positions
  import edgemoe_job_pkg::*;
#(
    parameter int LANES = 4,
    parameter int RESIDUAL_BITS = 24,
    parameter int BEAT_BITS = 64,
    parameter int WORD_BEATS = 2,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 8
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic start_valid,
    output logic start_ready,
    input  job_t start_job,
    input  logic [TOKEN_BITS-1:0] start_rows,  // of all images
    output logic done,

    input  logic beat_valid,
    output logic beat_ready,
    input  logic [BEAT_BITS-1:0] beat,

    output logic write_enable,
    output logic [TOKEN_BITS-1:0] write_token,
    output logic [WORD_BITS-1:0] write_word,
    output logic [LANES*RESIDUAL_BITS-1:0] write_data
);

  localparam int STORED = 32;

  logic busy;
  logic taking;  // words of the table are to come
  logic holds;  // a word, on its way to all images
  logic last_image;
  logic complete;
  logic [BEAT_BITS*WORD_BEATS-1:0] word;
  logic [TOKEN_BITS-1:0] rows;  // of an image
  logic [TOKEN_BITS-1:0] all_rows;
  logic [WORD_BITS-1:0] words;
  logic [TOKEN_BITS-1:0] token;  // that the next word is of
  logic [WORD_BITS-1:0] token_word;
  logic last_word;
  logic last_token;
  logic [TOKEN_BITS:0] next_image;  // the token of the next image
  wire unused_bits = &{1'b0, start_job, word};

  assign start_ready = !busy;
  assign last_image = next_image >= {1'b0, all_rows};
  assign beat_ready = taking && (!holds || last_image);
  assign last_word = token_word == words - 1'b1;
  assign last_token = token == rows - 1'b1;
  assign write_enable = holds;
  assign done = holds && last_image && !taking;

  edgemoe_collector #(.WIDTH(BEAT_BITS), .BEATS(WORD_BEATS)) collector (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .beat(beat),
      .valid(beat_valid && beat_ready),
      .restart(start_ready),
      .word(word),
      .complete(complete)
  );

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      busy <= 1'b0;
      taking <= 1'b0;
      holds <= 1'b0;
    end else begin
      if (start_valid && start_ready) busy <= 1'b1;
      else if (done) busy <= 1'b0;
      if (start_valid && start_ready) taking <= 1'b1;
      else if (complete && last_word && last_token) taking <= 1'b0;
      if (complete) holds <= 1'b1;
      else if (last_image) holds <= 1'b0;
    end

  always_ff @(posedge ap_clk)
    if (start_ready) begin
      rows <= TOKEN_BITS'(start_job.rows);
      all_rows <= start_rows;
      words <= WORD_BITS'(start_job.out_words);
      token <= '0;
      token_word <= '0;
    end else if (complete) begin
      token_word <= last_word ? '0 : token_word + 1'b1;
      if (last_word) token <= token + 1'b1;
    end

  always_ff @(posedge ap_clk)
    if (complete) begin
      write_token <= token;
      write_word  <= token_word;
      next_image  <= {1'b0, token} + {1'b0, rows};
    end else begin
      write_token <= next_image[TOKEN_BITS-1:0];
      next_image  <= next_image + {1'b0, rows};
    end
  for (genvar lane = 0; lane < LANES; lane++) begin : g_lane
    always_ff @(posedge ap_clk)
      if (complete) write_data[lane*RESIDUAL_BITS+:RESIDUAL_BITS] <= word[lane*STORED+:RESIDUAL_BITS];
  end

`ifndef SYNTHESIS
  initial assert (BEAT_BITS * WORD_BEATS >= LANES * STORED && RESIDUAL_BITS <= STORED);
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      if (start_valid) begin
        assume (start_job.engine == POSITIONS && start_job.rows != '0 && start_job.rows <= 32'(start_rows));
        assume (start_job.out_words != '0 && 32'(start_job.out_words) < 2 ** WORD_BITS);
      end
      if (holds) assert (busy && write_token < all_rows);
      if (complete) assert (!holds || last_image);
      // For the induction.
      if (busy) assert (rows != '0 && rows <= all_rows && token_word < words);
      if (taking) assert (busy && token < rows);
      if (holds) assert (next_image == {1'b0, write_token} + {1'b0, rows});
    end
`endif
`ifdef FORMAL
  initial assume (!ap_rst_n);
`endif

endmodule
