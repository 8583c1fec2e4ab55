// Order of a linear layer's work: rounds, and the results that each of them gives.
//
// A round multiplies one tile of tokens with one block of outputs, an operand word a step, while the tile of the round before
// is written back; a last round of every group only writes back. So results leave block by block, tile by tile, token by
// token. Sizes are taken with `start`; the operands may be read from `operands_valid` on.
module edgemoe_linear_sequencer #(
    parameter int TOKEN_TILE = 2,
    parameter int PARTS = 2,  // words of a token in a block
    parameter int TOKEN_BITS = 16,
    parameter int WORD_BITS = 4,
    parameter int OUT_WORD_BITS = 6,
    parameter int BLOCK_BITS = 4,
    parameter int GROUP_BITS = 3,
    parameter int ROW_BITS = 7,
    parameter int X_ADDRESS_BITS = 8,
    parameter int STEP_BITS = 4,
    localparam int TILE_BITS = TOKEN_TILE > 1 ? $clog2(TOKEN_TILE) : 1,
    localparam int PART_BITS = PARTS > 1 ? $clog2(PARTS) : 1
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic ce,

    input  logic start,  // while idle
    input  logic [TOKEN_BITS-1:0] tokens,
    input  logic [WORD_BITS-1:0] in_words,
    input  logic [OUT_WORD_BITS-1:0] out_words,
    input  logic [BLOCK_BITS-1:0] blocks,
    input  logic [X_ADDRESS_BITS-1:0] x_first,  // address of the first tile's first word
    input  logic [X_ADDRESS_BITS-1:0] x_stride,  // from a tile to the next
    input  logic operands_valid,
    output logic idle,
    output logic done,
    input  logic pipeline_busy,  // results are on their way

    input  logic [1:0] half_full,
    input  logic [2*GROUP_BITS-1:0] half_blocks,
    output logic group_ends,

    output logic [X_ADDRESS_BITS-1:0] x_address,
    output logic half,
    output logic [GROUP_BITS-1:0] block,
    output logic [ROW_BITS-1:0] weight_row,
    output logic multiplies,
    output logic first,  // word of a sum
    output logic round_over,

    output logic writes,
    output logic [TOKEN_BITS-1:0] write_token,
    output logic [OUT_WORD_BITS-1:0] write_word,
    output logic [GROUP_BITS-1:0] write_block,
    output logic [TILE_BITS-1:0] write_row,  // of the token, in its tile
    output logic [PART_BITS-1:0] write_part,  // of the word, in its block
    output logic last_write
);

  localparam int WRITE_STEPS = PARTS * TOKEN_TILE;

  // ---- Sizes of the layer.

  logic [TOKEN_BITS-1:0] token_count;
  logic [WORD_BITS-1:0] word_count;
  logic [OUT_WORD_BITS-1:0] out_word_count;
  logic [X_ADDRESS_BITS-1:0] first_address;
  logic [X_ADDRESS_BITS-1:0] stride;
  logic [STEP_BITS-1:0] last_step;
  logic one_step;  // a round has one step alone
  logic one_tile;

  always_ff @(posedge ap_clk)
    if (start && idle) begin
      token_count <= tokens;
      word_count <= in_words;
      out_word_count <= out_words;
      first_address <= x_first;
      stride <= x_stride;
      // Where no layer has more words than a tile takes to be written, the answer is always the same.
      /* verilator lint_off CMPCONST */
      last_step <= (STEP_BITS + 1)'(in_words) > (STEP_BITS + 1)'(WRITE_STEPS) ? STEP_BITS'(in_words - 1'b1) : STEP_BITS'(WRITE_STEPS - 1);
      /* verilator lint_on CMPCONST */
      one_step <= WRITE_STEPS == 1 && in_words == WORD_BITS'(1);
      one_tile <= {1'b0, tokens} <= (TOKEN_BITS + 1)'(TOKEN_TILE);
    end

  // ---- Rounds of a group.

  logic busy;
  logic running;
  logic draining;
  logic flushing;  // the round in which only the last tile is written back
  logic [BLOCK_BITS-1:0] blocks_left;  // of the layer, not yet begun
  logic [GROUP_BITS-1:0] group_blocks;
  logic [TOKEN_BITS-1:0] tile_token;  // first token of the tile
  logic [STEP_BITS-1:0] step;
  logic [X_ADDRESS_BITS-1:0] tile_address;
  logic [ROW_BITS-1:0] block_row;
  logic [OUT_WORD_BITS-1:0] block_word;  // first word of the block's results
  logic wrote;  // there was a round before
  logic [TOKEN_BITS-1:0] wrote_token;
  logic [OUT_WORD_BITS-1:0] wrote_word;
  logic last_tile;
  logic last_block;
  logic last_group;

  assign group_blocks = half ? half_blocks[GROUP_BITS+:GROUP_BITS] : half_blocks[0+:GROUP_BITS];
  assign last_block = block == group_blocks - 1'b1;
  assign last_group = blocks_left == BLOCK_BITS'(group_blocks);
  assign group_ends = running && ce && flushing && round_over;
  assign multiplies = running && !flushing && step < STEP_BITS'(word_count);
  assign first = step == '0;
  assign x_address = tile_address + X_ADDRESS_BITS'(step);
  assign weight_row = block_row + ROW_BITS'(step);

  assign idle = !busy;
  assign done = draining && !pipeline_busy && ce;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) busy <= 1'b0;
    else if (!busy) busy <= start;
    else if (done) busy <= 1'b0;

  // Halves take turns, from layer to layer as well.
  always_ff @(posedge ap_clk)
    if (!ap_rst_n) half <= 1'b0;
    else if (group_ends) half <= !half;

  always_ff @(posedge ap_clk)
    if (!busy) begin
      running <= 1'b0;
      draining <= 1'b0;
      blocks_left <= blocks;
    end else if (!running) begin
      running <= operands_valid && half_full[half] && !draining;
    end else if (group_ends) begin
      // The next group follows at once if it has come in.
      running <= half_full[!half] && !last_group;
      draining <= last_group;
      blocks_left <= blocks_left - BLOCK_BITS'(group_blocks);
    end

  always_ff @(posedge ap_clk)
    if (!busy) begin
      block_word <= '0;
    end else if (running && ce && !flushing && round_over && last_tile) begin
      block_word <= block_word + OUT_WORD_BITS'(PARTS);
    end

  always_ff @(posedge ap_clk)
    if (!running || group_ends) begin
      flushing <= 1'b0;
      block <= '0;
      tile_token <= '0;
      step <= '0;
      tile_address <= first_address;
      block_row <= '0;
      wrote <= 1'b0;
      // What a step or a tile is the last of is known when it begins.
      round_over <= one_step;
      last_tile <= one_tile;
    end else if (ce) begin
      step <= round_over ? '0 : step + 1'b1;
      round_over <= round_over ? one_step : step + 1'b1 == last_step;
      if (round_over) begin
        last_tile <= last_tile ? one_tile : {1'b0, tile_token} + (TOKEN_BITS + 1)'(2 * TOKEN_TILE) >= {1'b0, token_count};
        flushing <= last_tile && last_block;
        tile_token <= last_tile ? '0 : tile_token + TOKEN_BITS'(TOKEN_TILE);
        tile_address <= last_tile ? first_address : tile_address + stride;
        if (last_tile) begin
          block <= block + 1'b1;
          block_row <= block_row + ROW_BITS'(word_count);
        end
        wrote <= 1'b1;
      end
    end

  // ---- What is written back in this cycle, if anything: part of one token's channels in the block.

  logic [TOKEN_BITS:0] token;
  logic [OUT_WORD_BITS:0] word;

  always_ff @(posedge ap_clk)
    if (ce && round_over) begin
      write_block <= block;
      wrote_token <= tile_token;
      wrote_word  <= block_word;
    end

  always_ff @(posedge ap_clk)
    if (!running || group_ends) begin
      write_row  <= '0;
      write_part <= '0;
    end else if (ce) begin
      write_part <= round_over || write_part == PART_BITS'(PARTS - 1) ? '0 : write_part + 1'b1;
      if (round_over) write_row <= '0;
      else if (write_part == PART_BITS'(PARTS - 1)) write_row <= write_row + 1'b1;
    end

  assign token = {1'b0, wrote_token} + (TOKEN_BITS + 1)'(write_row);
  assign word = {1'b0, wrote_word} + (OUT_WORD_BITS + 1)'(write_part);
  assign writes = running && wrote && step < STEP_BITS'(WRITE_STEPS) && token < {1'b0, token_count} && word < {1'b0, out_word_count};
  assign last_write = token == {1'b0, token_count} - 1'b1 && word == {1'b0, out_word_count} - 1'b1;
  assign write_token = token[TOKEN_BITS-1:0];
  assign write_word = word[OUT_WORD_BITS-1:0];

`ifndef SYNTHESIS
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      if (start && idle) assume (in_words != '0 && tokens != '0 && out_words != '0 && blocks != '0);
      assert (!(running && draining));
      if (busy && running) assert (half_full[half] && group_blocks != '0);
      if (busy && running) assert (BLOCK_BITS'(group_blocks) <= blocks_left);
    end
`endif

endmodule
