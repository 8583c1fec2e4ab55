// Queries, keys and values of all heads: three memories with rows of ROW_WORDS words a token.
//
// The linear engine writes a token's words q, k, v one after the other: word w is q's below `mixed_words`, then k's, then
// v's. What is written can be asked for SETUP + 1 cycles later. The attention engine reads each by address,
// token * ROW_WORDS + word, and has it LATENCY cycles later.
module edgemoe_head_memory #(
    parameter int WIDTH = 8,  // of a word
    parameter int TOKENS = 16,
    parameter int ROW_WORDS = 4,  // most words of a token's queries
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 8,  // of a word of q, k, v side by side
    parameter int LATENCY = 2,
    parameter STYLE = "block",
    localparam int SETUP = 2,  // which of the three, address
    localparam int DEPTH = TOKENS * ROW_WORDS,
    localparam int ADDRESS_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic [WORD_BITS-1:0] mixed_words,  // words of a token's queries in this network, while any is written
    input  logic write_enable,
    input  logic [TOKEN_BITS-1:0] write_token,
    input  logic [WORD_BITS-1:0] write_word,
    input  logic [WIDTH-1:0] write_data,

    input  logic [ADDRESS_BITS-1:0] q_address,
    input  logic [ADDRESS_BITS-1:0] k_address,
    input  logic [ADDRESS_BITS-1:0] v_address,
    output logic [WIDTH-1:0] q,
    output logic [WIDTH-1:0] k,
    output logic [WIDTH-1:0] v
);

  // ---- Which of the three, and which of its words.

  logic [WORD_BITS:0] words_of_two;
  logic is_k;
  logic is_v;
  logic [2:0] writes_1;
  logic [2:0] writes_2;
  logic [TOKEN_BITS-1:0] token_1;
  logic [WORD_BITS-1:0] word_1;
  logic [WIDTH-1:0] data_2;
  logic [ADDRESS_BITS-1:0] address;
  wire unused_high = &{1'b0, token_1, word_1};

  assign words_of_two = {mixed_words, 1'b0};
  assign is_v = {1'b0, write_word} >= words_of_two;
  assign is_k = write_word >= mixed_words && !is_v;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      writes_1 <= '0;
      writes_2 <= '0;
    end else begin
      writes_1 <= {is_v, is_k, !is_v && !is_k} & {3{write_enable}};
      writes_2 <= writes_1;
    end

  always_ff @(posedge ap_clk) begin
    token_1 <= write_token;
    word_1  <= write_word - (is_v ? words_of_two[WORD_BITS-1:0] : is_k ? mixed_words : '0);
    address <= ADDRESS_BITS'(token_1) * ADDRESS_BITS'(ROW_WORDS) + ADDRESS_BITS'(word_1);
  end
  edgemoe_delay #(.WIDTH(WIDTH), .CYCLES(SETUP)) data_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in(write_data),
      .out(data_2)
  );

  // ---- The memories.

  logic [3*ADDRESS_BITS-1:0] read_addresses;
  logic [3*WIDTH-1:0] words;
  assign read_addresses = {v_address, k_address, q_address};
  assign {v, k, q} = words;

  for (genvar matrix = 0; matrix < 3; matrix++) begin : g_matrix
    edgemoe_memory #(.WIDTH(WIDTH), .DEPTH(DEPTH), .LATENCY(LATENCY), .STYLE(STYLE)) memory (
        .ap_clk(ap_clk),
        .write_enable(writes_2[matrix]),
        .write_address(address),
        .write_data(data_2),
        .ce(1'b1),
        .read_address(read_addresses[matrix*ADDRESS_BITS+:ADDRESS_BITS]),
        .read_data(words[matrix*WIDTH+:WIDTH])
    );
  end

`ifndef SYNTHESIS
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      if (write_enable) assert (32'(write_token) < TOKENS && 32'(mixed_words) <= ROW_WORDS);
      if (write_enable) assert (32'(write_word) < 3 * 32'(mixed_words));
    end
`endif

endmodule
