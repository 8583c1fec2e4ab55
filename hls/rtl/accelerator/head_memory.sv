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
endmodule
