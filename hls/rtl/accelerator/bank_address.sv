// Bank of a token in the operand memory, and the address of one of its words there, three cycles later.
//
// Token t is in bank t % TOKEN_TILE, word w at t / TOKEN_TILE * ROW_WORDS + w. Where TOKEN_TILE is no power of two, the quotient is
// a product with its reciprocal, which is exact for every token.
module edgemoe_bank_address #(
    parameter int TOKEN_TILE = 2,
    parameter int ROW_WORDS = 4,
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 8,
    parameter int ADDRESS_BITS = 8
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic enable,
    input  logic [TOKEN_BITS-1:0] token,
    input  logic [WORD_BITS-1:0] word,
    output logic [TOKEN_TILE-1:0] banks,  // the token's, if it was enabled
    output logic [ADDRESS_BITS-1:0] address
);

  localparam int TILE_BITS = $clog2(TOKEN_TILE);
  localparam int BANK_BITS = TOKEN_TILE > 1 ? TILE_BITS : 1;
  localparam int SCALE_BITS = TOKEN_BITS + TILE_BITS;
  localparam longint RECIPROCAL = ((64'd1 << SCALE_BITS) + 64'(TOKEN_TILE) - 64'd1) / 64'(TOKEN_TILE);

  logic enable_2;
  logic unused_busy;
  logic [TOKEN_BITS-1:0] token_1;
  logic [WORD_BITS-1:0] word_1;
  logic [TOKEN_BITS-1:0] quotient;
  logic [TOKEN_BITS-1:0] tile;
  logic [BANK_BITS-1:0] bank;
  logic [TOKEN_BITS-1:0] token_2;
  logic [WORD_BITS-1:0] word_2;
  wire unused_high = &{1'b0, word_2, tile};

  edgemoe_valid_delay #(.CYCLES(2)) enable_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(enable),
      .out(enable_2),
      .any(unused_busy)
  );

  if (TOKEN_TILE == 2 ** TILE_BITS) begin : g_shift
    assign quotient = token_1 >> TILE_BITS;
  end else begin : g_reciprocal
    assign quotient = TOKEN_BITS'(((TOKEN_BITS + SCALE_BITS)'(token_1) * (TOKEN_BITS + SCALE_BITS)'(RECIPROCAL)) >> SCALE_BITS);
  end
  assign bank = BANK_BITS'(token_2 - tile * TOKEN_BITS'(TOKEN_TILE));

  always_ff @(posedge ap_clk) begin
    token_1 <= token;
    word_1 <= word;
    token_2 <= token_1;
    word_2 <= word_1;
    tile <= quotient;
    address <= ADDRESS_BITS'(tile) * ADDRESS_BITS'(ROW_WORDS) + ADDRESS_BITS'(word_2);
  end

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) banks <= '0;
    else banks <= enable_2 ? TOKEN_TILE'(1) << bank : '0;

`ifndef SYNTHESIS
  always_ff @(posedge ap_clk)
    if (ap_rst_n && enable_2) assert (tile == token_2 / TOKEN_BITS'(TOKEN_TILE) && TOKEN_BITS'(bank) == token_2 % TOKEN_BITS'(TOKEN_TILE));
`endif
`ifdef FORMAL
  initial assume (!ap_rst_n);
`endif

endmodule
