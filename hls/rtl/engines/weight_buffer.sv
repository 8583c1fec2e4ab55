// Weights and records of a linear layer, on their way from the beats of the weight image to the array.
//
// A layer comes block after block of OUTPUTS channels: first the records (bias, multiplier, shift), then a row of weights
// for every operand word. As many blocks as fit make a group, in one of two halves; while it computes, the next group
// loads into the other half, be it of the same layer or of the next one. Rows and records are read while `ce` is high: a row
// is there two cycles later, a bias one, a multiplier and its shift two.
module edgemoe_weight_buffer #(
    parameter int LANES = 4,
    parameter int OUTPUTS = 8,
    parameter int W_BITS = 8,
    parameter int W_STORED = 8,  // bits of a weight in a beat
    parameter int BIAS_BITS = 32,
    parameter int MULTIPLIER_BITS = 16,  // 1 where there are none
    parameter bit MULTIPLIES = 1'b1,
    parameter int RECORD_STORED = 64,
    parameter int SHIFT_STORED = 8,  // bits of the shift, at the end of a record
    parameter int BEAT_BITS = 64,
    parameter int RECORD_BEATS = 1,
    parameter int WORD_BEATS = 1,
    parameter int ROWS = 64,  // of a half
    parameter int MAX_GROUP = 4,  // blocks of a half
    parameter int WORD_BITS = 4,
    parameter int BLOCK_BITS = 4,
    parameter STYLE = "auto",
    localparam int GROUP_BITS = $clog2(MAX_GROUP + 1),
    localparam int ROW_BITS = $clog2(ROWS + 1),
    localparam int SCALE_BITS = MULTIPLIER_BITS + 6
) (
    input  logic ap_clk,
    input  logic ap_rst_n,

    // A layer to load: taken while no other is on its way in.
    input  logic load_valid,
    output logic load_ready,
    input  logic [WORD_BITS-1:0] load_words,  // operand words
    input  logic [BLOCK_BITS-1:0] load_blocks,
    input  logic beat_valid,
    output logic beat_ready,
    input  logic [BEAT_BITS-1:0] beat,
    output logic beat_last,  // with this beat the layer is in

    output logic [1:0] half_full,
    output logic [2*GROUP_BITS-1:0] half_blocks,
    input  logic [1:0] half_freed,

    input  logic ce,
    input  logic row_half,
    input  logic [ROW_BITS-1:0] row,
    output logic [OUTPUTS*LANES*W_BITS-1:0] row_weights,
    input  logic bias_half,
    input  logic [GROUP_BITS-1:0] bias_block,
    output logic [OUTPUTS*BIAS_BITS-1:0] bias,
    input  logic scale_half,
    input  logic [GROUP_BITS-1:0] scale_block,
    output logic [OUTPUTS*SCALE_BITS-1:0] scales  // of each output: shift, multiplier
);

  localparam int ROW_ADDRESS_BITS = $clog2(2 * ROWS);
  localparam int GROUP_ADDRESS_BITS = $clog2(2 * MAX_GROUP);

  logic half;
  logic loading_records;
  logic taken;
  logic loading;
  logic [WORD_BITS-1:0] words;
  logic [BLOCK_BITS-1:0] left;  // blocks that have not come in
  logic [GROUP_BITS-1:0] block;  // in its group
  logic [ROW_BITS-1:0] load_row;  // in its half
  logic [ROW_BITS-1:0] rows_taken;  // of the half, by this block and those before it
  logic [WORD_BITS-1:0] words_left;  // of the block
  logic full_here;  // the half that is to be filled
  logic one_word;
  logic ends_block;
  logic ends_layer;
  logic ends_group;
  logic [BEAT_BITS*RECORD_BEATS-1:0] record_row;
  logic [BEAT_BITS*WORD_BEATS-1:0] weight_row;
  logic records_complete;
  logic row_complete;
  logic block_complete;
  logic group_complete;
  logic [1:0] still_full;

  assign still_full = half_full & ~half_freed;
  assign load_ready = !loading;
  assign beat_ready = loading && !full_here;
  assign taken = beat_valid && beat_ready;
  assign block_complete = row_complete && ends_block;
  assign beat_last = block_complete && ends_layer;
  assign group_complete = block_complete && ends_group;

  // A block has at least a beat of records and one of weights: so these are known when its last beat comes.
  always_ff @(posedge ap_clk) begin
    ends_layer <= left == BLOCK_BITS'(1);
    // Another block would not fit, or none is left.
    ends_group <= left == BLOCK_BITS'(1) || block == GROUP_BITS'(MAX_GROUP - 1)
        || {1'b0, rows_taken} + (ROW_BITS + 1)'(words) > (ROW_BITS + 1)'(ROWS);
  end

  edgemoe_collector #(.WIDTH(BEAT_BITS), .BEATS(RECORD_BEATS)) record_collector (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .beat(beat),
      .valid(taken && loading_records),
      .restart(1'b0),
      .word(record_row),
      .complete(records_complete)
  );
  edgemoe_collector #(.WIDTH(BEAT_BITS), .BEATS(WORD_BEATS)) weight_collector (
      .ap_clk(ap_clk),
      .ap_rst_n(ap_rst_n),
      .beat(beat),
      .valid(taken && !loading_records),
      .restart(1'b0),
      .word(weight_row),
      .complete(row_complete)
  );

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      half <= 1'b0;
      loading_records <= 1'b1;
      loading <= 1'b0;
      block <= '0;
      load_row <= '0;
      half_full <= '0;
      full_here <= 1'b0;
    end else begin
      if (load_valid && load_ready) loading <= 1'b1;
      else if (beat_last) loading <= 1'b0;
      if (records_complete) loading_records <= 1'b0;
      else if (block_complete) loading_records <= 1'b1;
      if (row_complete) load_row <= group_complete ? '0 : load_row + 1'b1;
      if (block_complete) block <= group_complete ? '0 : block + 1'b1;
      if (group_complete) half <= !half;
      half_full <= (half_full & ~half_freed) | (group_complete ? 2'b01 << half : 2'b00);
      full_here <= group_complete ? still_full[!half] : still_full[half];
    end

  always_ff @(posedge ap_clk) begin
    if (load_valid && load_ready) begin
      words <= load_words;
      words_left <= load_words;
      one_word <= load_words == WORD_BITS'(1);
      ends_block <= load_words == WORD_BITS'(1);
      left <= load_blocks;
      rows_taken <= ROW_BITS'(load_words);
    end else if (block_complete) begin
      words_left <= words;
      ends_block <= one_word;
      left <= left - 1'b1;
      rows_taken <= group_complete ? ROW_BITS'(words) : rows_taken + ROW_BITS'(words);
    end else if (row_complete) begin
      words_left <= words_left - 1'b1;
      ends_block <= words_left == WORD_BITS'(2);
    end
    if (group_complete && !half) half_blocks[0+:GROUP_BITS] <= block + 1'b1;
    if (group_complete && half) half_blocks[GROUP_BITS+:GROUP_BITS] <= block + 1'b1;
  end

  // The rows without the bytes that a stored weight or record has and its number has not.
  logic [OUTPUTS*LANES*W_BITS-1:0] weight_lanes;
  logic [OUTPUTS*BIAS_BITS-1:0] bias_lanes;
  logic [OUTPUTS*SCALE_BITS-1:0] scale_lanes;
  wire unused_rows = &{1'b0, weight_row, record_row};

  for (genvar i = 0; i < OUTPUTS * LANES; i++) begin : g_weight
    assign weight_lanes[i*W_BITS+:W_BITS] = weight_row[i*W_STORED+:W_BITS];
  end
  for (genvar o = 0; o < OUTPUTS; o++) begin : g_record
    logic [RECORD_STORED-1:0] record;
    wire unused_record = &{1'b0, record};
    assign record = record_row[o*RECORD_STORED+:RECORD_STORED];
    assign bias_lanes[o*BIAS_BITS+:BIAS_BITS] = record[BIAS_BITS-1:0];
    assign scale_lanes[o*SCALE_BITS+MULTIPLIER_BITS+:6] = record[RECORD_STORED-SHIFT_STORED+:6];
    if (MULTIPLIES) begin : g_multiplier
      assign scale_lanes[o*SCALE_BITS+:MULTIPLIER_BITS] = record[BIAS_BITS+:MULTIPLIER_BITS];
    end else begin : g_one
      assign scale_lanes[o*SCALE_BITS+:MULTIPLIER_BITS] = '1;
    end
  end

  // The second half lies behind the first.
  function automatic logic [ROW_ADDRESS_BITS-1:0] row_address(input logic in_half, input logic [ROW_BITS-1:0] number);
    row_address = (in_half ? ROW_ADDRESS_BITS'(ROWS) : '0) + ROW_ADDRESS_BITS'(number);
  endfunction

  function automatic logic [GROUP_ADDRESS_BITS-1:0] group_address(input logic in_half, input logic [GROUP_BITS-1:0] number);
    group_address = (in_half ? GROUP_ADDRESS_BITS'(MAX_GROUP) : '0) + GROUP_ADDRESS_BITS'(number);
  endfunction

  edgemoe_memory #(.WIDTH(OUTPUTS * LANES * W_BITS), .DEPTH(2 * ROWS), .LATENCY(2), .STYLE(STYLE)) weights (
      .ap_clk(ap_clk),
      .write_enable(row_complete),
      .write_address(row_address(half, load_row)),
      .write_data(weight_lanes),
      .ce(ce),
      .read_address(row_address(row_half, row)),
      .read_data(row_weights)
  );
  edgemoe_memory #(.WIDTH(OUTPUTS * BIAS_BITS), .DEPTH(2 * MAX_GROUP), .LATENCY(1), .STYLE("auto")) biases (
      .ap_clk(ap_clk),
      .write_enable(records_complete),
      .write_address(group_address(half, block)),
      .write_data(bias_lanes),
      .ce(ce),
      .read_address(group_address(bias_half, bias_block)),
      .read_data(bias)
  );
  edgemoe_memory #(.WIDTH(OUTPUTS * SCALE_BITS), .DEPTH(2 * MAX_GROUP), .LATENCY(2), .STYLE("auto")) scale_memory (
      .ap_clk(ap_clk),
      .write_enable(records_complete),
      .write_address(group_address(half, block)),
      .write_data(scale_lanes),
      .ce(ce),
      .read_address(group_address(scale_half, scale_block)),
      .read_data(scales)
  );

`ifndef SYNTHESIS
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      /* verilator lint_off CMPCONST */
      if (load_valid && load_ready) assume (load_words != '0 && 32'(load_words) <= ROWS);
      /* verilator lint_on CMPCONST */
      assert ((half_freed & ~half_full) == '0);
      assert (full_here == half_full[half]);
      if (group_complete) assert (!half_full[half]);
    end
`endif

endmodule
