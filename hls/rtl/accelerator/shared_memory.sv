// A memory of tokens' words that several engines share: one write port and one read port, and who uses them by turns.
//
// A row is a token's, ROW_WORDS words apart, whatever a network uses of them. A port is named by its enable, no two in one
// cycle: the job table keeps their users apart. What is written can be asked for in the next cycle. What is asked for is on `read_data` SETUP + LATENCY cycles later, with `read_valid` of the port that asked.
module edgemoe_shared_memory #(
    parameter int WIDTH = 8,  // of a word
    parameter int TOKENS = 16,
    parameter int ROW_WORDS = 4,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 8,
    parameter int WRITERS = 2,
    parameter int READERS = 2,
    parameter int SETUP = 2,  // 1: port and address are chosen in one cycle; 2: in two
    parameter int LATENCY = 2,  // of the memory
    parameter STYLE = "block"
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic [WRITERS-1:0] write_enable,
    input  logic [WRITERS*TOKEN_BITS-1:0] write_token,
    input  logic [WRITERS*WORD_BITS-1:0] write_word,
    input  logic [WRITERS*WIDTH-1:0] write_data,

    input  logic [READERS-1:0] read_enable,
    input  logic [READERS*TOKEN_BITS-1:0] read_token,
    input  logic [READERS*WORD_BITS-1:0] read_word,
    output logic [READERS-1:0] read_valid,
    output logic [WIDTH-1:0] read_data
);

  localparam int DEPTH = TOKENS * ROW_WORDS;
  localparam int ADDRESS_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1;

  // ---- Writing.

  logic [TOKEN_BITS-1:0] write_token_chosen;
  logic [WORD_BITS-1:0] write_word_chosen;
  logic [WIDTH-1:0] write_data_chosen;
  logic [TOKEN_BITS-1:0] write_token_1;
  logic [WORD_BITS-1:0] write_word_1;
  logic [ADDRESS_BITS-1:0] write_address;
  logic [WIDTH-1:0] write_data_2;
  logic writes;
  logic unused_writing;

  edgemoe_one_hot #(.WIDTH(TOKEN_BITS), .CHOICES(WRITERS)) choose_write_token (
      .enable(write_enable),
      .in(write_token),
      .out(write_token_chosen)
  );
  edgemoe_one_hot #(.WIDTH(WORD_BITS), .CHOICES(WRITERS)) choose_write_word (
      .enable(write_enable),
      .in(write_word),
      .out(write_word_chosen)
  );
  edgemoe_one_hot #(.WIDTH(WIDTH), .CHOICES(WRITERS)) choose_write_data (
      .enable(write_enable),
      .in(write_data),
      .out(write_data_chosen)
  );
  edgemoe_delay #(.WIDTH(TOKEN_BITS + WORD_BITS), .CYCLES(SETUP - 1)) write_place_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in({write_token_chosen, write_word_chosen}),
      .out({write_token_1, write_word_1})
  );
  edgemoe_delay #(.WIDTH(WIDTH), .CYCLES(SETUP)) write_data_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in(write_data_chosen),
      .out(write_data_2)
  );
  edgemoe_valid_delay #(.CYCLES(SETUP)) write_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(|write_enable),
      .out(writes),
      .any(unused_writing)
  );
  always_ff @(posedge ap_clk)
    write_address <= ADDRESS_BITS'(write_token_1) * ADDRESS_BITS'(ROW_WORDS) + ADDRESS_BITS'(write_word_1);

  // ---- Reading.

  logic [TOKEN_BITS-1:0] read_token_chosen;
  logic [WORD_BITS-1:0] read_word_chosen;
  logic [TOKEN_BITS-1:0] read_token_1;
  logic [WORD_BITS-1:0] read_word_1;
  logic [ADDRESS_BITS-1:0] read_address;
  wire unused_high = &{1'b0, write_token_1, write_word_1, read_token_1, read_word_1};

  edgemoe_one_hot #(.WIDTH(TOKEN_BITS), .CHOICES(READERS)) choose_read_token (
      .enable(read_enable),
      .in(read_token),
      .out(read_token_chosen)
  );
  edgemoe_one_hot #(.WIDTH(WORD_BITS), .CHOICES(READERS)) choose_read_word (
      .enable(read_enable),
      .in(read_word),
      .out(read_word_chosen)
  );
  edgemoe_delay #(.WIDTH(TOKEN_BITS + WORD_BITS), .CYCLES(SETUP - 1)) read_place_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in({read_token_chosen, read_word_chosen}),
      .out({read_token_1, read_word_1})
  );
  always_ff @(posedge ap_clk)
    read_address <= ADDRESS_BITS'(read_token_1) * ADDRESS_BITS'(ROW_WORDS) + ADDRESS_BITS'(read_word_1);

  for (genvar reader = 0; reader < READERS; reader++) begin : g_reader
    logic unused_reading;
    edgemoe_valid_delay #(.CYCLES(SETUP + LATENCY)) read_line (
        .ap_clk(ap_clk),
        .ap_rst_n(ap_rst_n),
        .ce(1'b1),
        .in(read_enable[reader]),
        .out(read_valid[reader]),
        .any(unused_reading)
    );
  end

  edgemoe_memory #(.WIDTH(WIDTH), .DEPTH(DEPTH), .LATENCY(LATENCY), .STYLE(STYLE)) memory (
      .ap_clk(ap_clk),
      .write_enable(writes),
      .write_address(write_address),
      .write_data(write_data_2),
      .ce(1'b1),
      .read_address(read_address),
      .read_data(read_data)
  );

`ifndef SYNTHESIS
  initial assert (SETUP == 1 || SETUP == 2);
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      assert ($onehot0(write_enable) && $onehot0(read_enable));
      if (|write_enable) assert (32'(write_token_chosen) < TOKENS && 32'(write_word_chosen) < ROW_WORDS);
      if (|read_enable) assert (32'(read_token_chosen) < TOKENS && 32'(read_word_chosen) < ROW_WORDS);
    end
`endif

endmodule
