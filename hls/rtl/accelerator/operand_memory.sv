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

  // ---- Writing: one word, whose bank and address are found in the cycles after.

  logic [TOKEN_BITS-1:0] write_token_chosen;
  logic [WORD_BITS-1:0] write_word_chosen;
  logic [WIDTH-1:0] write_data_chosen;
  logic [TOKEN_TILE-1:0] bank_writes;
  logic [ADDRESS_BITS-1:0] write_address;
  logic [WIDTH-1:0] write_data_3;

  edgemoe_one_hot #(.WIDTH(TOKEN_BITS), .CHOICES(WRITERS)) choose_token (
      .enable(write_enable),
      .in(write_token),
      .out(write_token_chosen)
  );
  edgemoe_one_hot #(.WIDTH(WORD_BITS), .CHOICES(WRITERS)) choose_word (
      .enable(write_enable),
      .in(write_word),
      .out(write_word_chosen)
  );
  edgemoe_one_hot #(.WIDTH(WIDTH), .CHOICES(WRITERS)) choose_data (
      .enable(write_enable),
      .in(write_data),
      .out(write_data_chosen)
  );
  edgemoe_delay #(.WIDTH(WIDTH), .CYCLES(SETUP)) write_data_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in(write_data_chosen),
      .out(write_data_3)
  );
  edgemoe_bank_address #(
      .TOKEN_TILE(TOKEN_TILE),
      .ROW_WORDS(ROW_WORDS),
      .TOKEN_BITS(TOKEN_BITS),
      .WORD_BITS(WORD_BITS),
      .ADDRESS_BITS(ADDRESS_BITS)
  ) write_place (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .enable(|write_enable),
      .token(write_token_chosen),
      .word(write_word_chosen),
      .banks(bank_writes),
      .address(write_address)
  );

  // ---- Reading: a tile at once, or a word of one token.

  logic [TOKEN_TILE-1:0] bank_reads;
  logic [TOKEN_TILE-1:0] bank_read;
  logic [ADDRESS_BITS-1:0] read_address;
  logic [WIDTH-1:0] read_chosen;
  logic unused_reading;

  edgemoe_bank_address #(
      .TOKEN_TILE(TOKEN_TILE),
      .ROW_WORDS(ROW_WORDS),
      .TOKEN_BITS(TOKEN_BITS),
      .WORD_BITS(WORD_BITS),
      .ADDRESS_BITS(ADDRESS_BITS)
  ) read_place (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .enable(read_enable),
      .token(read_token),
      .word(read_word),
      .banks(bank_reads),
      .address(read_address)
  );

  for (genvar bank = 0; bank < TOKEN_TILE; bank++) begin : g_bank
    edgemoe_memory #(.WIDTH(WIDTH), .DEPTH(DEPTH), .LATENCY(LATENCY), .STYLE(STYLE)) memory (
        .ap_clk(ap_clk),
        .write_enable(bank_writes[bank]),
        .write_address(write_address),
        .write_data(write_data_3),
        .ce(1'b1),
        .read_address(|bank_reads ? read_address : tile_address),
        .read_data(tile_data[bank*WIDTH+:WIDTH])
    );
  end

  edgemoe_delay #(.WIDTH(TOKEN_TILE), .CYCLES(LATENCY)) bank_line (
      .ap_clk(ap_clk),
      .ce(1'b1),
      .in(bank_reads),
      .out(bank_read)
  );
  edgemoe_one_hot #(.WIDTH(WIDTH), .CHOICES(TOKEN_TILE)) choose_bank (
      .enable(bank_read),
      .in(tile_data),
      .out(read_chosen)
  );
  always_ff @(posedge ap_clk) read_data <= read_chosen;

  edgemoe_valid_delay #(.CYCLES(SETUP + LATENCY + 1)) read_line (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .ce(1'b1),
      .in(read_enable),
      .out(read_valid),
      .any(unused_reading)
  );

`ifdef SYNTHESIS
  wire unused = &{1'b0, tile_enable};
`else
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      assert ($onehot0(write_enable));
      if (|write_enable) assert (32'(write_token_chosen) < TOKENS && 32'(write_word_chosen) < ROW_WORDS);
      if (read_enable) assert (32'(read_token) < TOKENS && 32'(read_word) < ROW_WORDS);
      assert (!(tile_enable && |bank_reads));
      if (tile_enable) assert (32'(tile_address) < DEPTH);
    end
`endif

endmodule
