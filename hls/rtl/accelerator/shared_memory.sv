// A memory of tokens' words that several engines share: one write port and one read port, and who uses them by turns.
//
// A row is a token's, ROW_WORDS words apart, whatever a network uses of them. A port is named by its enable, no two in one
// cycle: the job table keeps their users apart. What is written is in the memory SETUP cycles later: who reads it asks for it
// after that. What is asked for is on `read_data` SETUP + LATENCY cycles later, with `read_valid` of the port that asked.
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
endmodule
