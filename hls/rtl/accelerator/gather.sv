// Engine GATHER: copies the tokens of queue `index` side by side in the operand memory, a word a cycle.
//
// Word w of row i is word w of token i of the queue: read from `source_word` on, written from `destination_word` on. The
// queue's token comes QUEUE cycles after its place, its word READ cycles after that. `done` is one cycle, once the last word
// has been handed to the memory.
module edgemoe_gather
  import edgemoe_job_pkg::*;
#(
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 8,
    parameter int EXPERT_BITS = 4,
    parameter int WIDTH = 8,  // of a word
    parameter int QUEUE = 2,
    parameter int READ = 6
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic start_valid,
    output logic start_ready,
    input  job_t start_job,
    input  logic [TOKEN_BITS-1:0] start_rows,
    output logic done,

    output logic queue_enable,
    output logic [EXPERT_BITS-1:0] queue_expert,
    output logic [TOKEN_BITS-1:0] queue_place,
    input  logic [TOKEN_BITS-1:0] queue_token,

    output logic read_enable,
    output logic [TOKEN_BITS-1:0] read_token,
    output logic [WORD_BITS-1:0] read_word,
    input  logic [WIDTH-1:0] read_data,

    output logic write_enable,
    output logic [TOKEN_BITS-1:0] write_token,
    output logic [WORD_BITS-1:0] write_word,
    output logic [WIDTH-1:0] write_data
);

  logic running;  // places and words are asked for
  logic [TOKEN_BITS-1:0] row;
  logic [TOKEN_BITS-1:0] rows_left;
  logic [WORD_BITS-1:0] words;
  logic [WORD_BITS-1:0] words_left;
  logic [WORD_BITS-1:0] source_first;
  logic [WORD_BITS-1:0] target_first;
  logic [WORD_BITS-1:0] source;
  logic [WORD_BITS-1:0] target;
  logic last_word;
  logic last_row;
  logic queue_busy;
  logic read_busy;
  logic busy;
  wire unused_job = &{1'b0, start_job};

  assign start_ready = !busy;
  assign last_word = words_left == WORD_BITS'(1);
  assign last_row = rows_left == TOKEN_BITS'(1);
  assign done = busy && !running && !queue_busy && !read_busy;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      busy <= 1'b0;
      running <= 1'b0;
    end else if (start_valid && start_ready) begin
      busy <= 1'b1;
      running <= 1'b1;
    end else begin
      if (running && last_word && last_row) running <= 1'b0;
      if (done) busy <= 1'b0;
    end

  always_ff @(posedge ap_clk)
    if (start_ready) begin
      queue_expert <= EXPERT_BITS'(start_job.index);
      words <= WORD_BITS'(start_job.words);
      words_left <= WORD_BITS'(start_job.words);
      source_first <= WORD_BITS'(start_job.source_word);
      target_first <= WORD_BITS'(start_job.destination_word);
      source <= WORD_BITS'(start_job.source_word);
      target <= WORD_BITS'(start_job.destination_word);
      row <= '0;
      rows_left <= start_rows;
    end else if (running) begin
      words_left <= last_word ? words : words_left - 1'b1;
      source <= last_word ? source_first : source + 1'b1;
      target <= last_word ? target_first : target + 1'b1;
      if (last_word) begin
        row <= row + 1'b1;
        rows_left <= rows_left - 1'b1;
      end
    end

  assign queue_enable = running;
  assign queue_place = row;
  assign read_token = queue_token;
  assign write_data = read_data;

  edgemoe_valid_delay #(.CYCLES(QUEUE)) queue_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(running),
      .out(read_enable),
      .any(queue_busy)
  );
  edgemoe_delay #(.WIDTH(WORD_BITS), .CYCLES(QUEUE)) source_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in(source),
      .out(read_word)
  );
  edgemoe_valid_delay #(.CYCLES(READ)) read_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(read_enable),
      .out(write_enable),
      .any(read_busy)
  );
  edgemoe_delay #(.WIDTH(TOKEN_BITS + WORD_BITS), .CYCLES(QUEUE + READ)) target_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in({row, target}),
      .out({write_token, write_word})
  );

`ifndef SYNTHESIS
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      if (start_valid) begin
        assume (start_job.engine == GATHER && start_rows != '0);
        assume (start_job.words != '0 && 32'(start_job.words) < 2 ** WORD_BITS);
      end
      if (busy) assert (words != '0);
      if (running) assert (busy && rows_left != '0 && words_left != '0);
    end
`endif
`ifdef FORMAL
  initial assume (!ap_rst_n);
`endif

endmodule
