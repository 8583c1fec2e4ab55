// Operands of the linear engine: token t in bank t % TOKEN_TILE, so that a tile of tokens is read at once.
//
// Address of a token's word in its bank: t / TOKEN_TILE * ROW_WORDS + word, `word` counted from the row's first (regions
// included). Writers are named by their enable, no two in one cycle; what is written can be asked for SETUP + 1 cycles
// later. `tile_data` is the word at `tile_address` of every bank, LATENCY cycles later; `tile_enable` says that this matters
// to anyone. The reader of a single token has its word, with `read_valid`, SETUP + LATENCY + 1 cycles later; both
// kinds of reading share the banks' ports, and never happen in the same cycle.
module edgemoe_operand_memory #(
    parameter int LANES = 4,
    parameter int X_BITS = 8,
    parameter int TOKEN_TILE = 2,
    parameter int TOKENS = 16,
    parameter int ROW_WORDS = 4,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 8,
    parameter int WRITERS = 5,
    parameter int LATENCY = 2,
    parameter STYLE = "block",
    localparam int SETUP = 3,  // port, tile and bank, address
    localparam int WIDTH = LANES * X_BITS,
    localparam int DEPTH = (TOKENS + TOKEN_TILE - 1) / TOKEN_TILE * ROW_WORDS,
    localparam int ADDRESS_BITS = DEPTH > 1 ? $clog2(DEPTH) : 1
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    input  logic [WRITERS-1:0] write_enable,
    input  logic [WRITERS*TOKEN_BITS-1:0] write_token,
    input  logic [WRITERS*WORD_BITS-1:0] write_word,
    input  logic [WRITERS*WIDTH-1:0] write_data,

    input  logic tile_enable,
    input  logic [ADDRESS_BITS-1:0] tile_address,
    output logic [TOKEN_TILE*WIDTH-1:0] tile_data,

    input  logic read_enable,
    input  logic [TOKEN_BITS-1:0] read_token,
    input  logic [WORD_BITS-1:0] read_word,
    output logic read_valid,
    output logic [WIDTH-1:0] read_data
);
endmodule
