// Queues of tokens, one for each expert: tokens and scores in order, how many there are, and who has any.
//
// The router clears the lengths with `clear` as it starts and enters tokens at the places that it counts itself; the queue of
// patches is queue 0, without scores, and has no length. An entry can be asked for two cycles later. `active` and
// `decided`, the experts that have any token and how many routers have decided, follow two cycles behind
// `router_done`, and stay until the next decision. Both readers have their entry LATENCY cycles after they asked, never
// both in one cycle: `token` and `score` are for either.
module edgemoe_queue_memory #(
    parameter int EXPERTS = 16,
    parameter int TOKENS = 16,  // most tokens of a queue
    parameter int TOKEN_BITS = 16,
    parameter int EXPERT_BITS = 4,
    parameter int SCORE_BITS = 17,
    parameter int LATENCY = 2,
    parameter STYLE = "block"
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic restart,  // a new call: no router has decided

    input  logic clear,
    input  logic entry_valid,
    input  logic [EXPERT_BITS-1:0] entry_expert,
    input  logic [TOKEN_BITS-1:0] entry_place,
    input  logic [TOKEN_BITS-1:0] entry_token,
    input  logic [SCORE_BITS-1:0] entry_score,
    input  logic router_done,

    input  logic patch_valid,
    input  logic [TOKEN_BITS-1:0] patch_place,
    input  logic [TOKEN_BITS-1:0] patch_token,

    input  logic gather_enable,
    input  logic [EXPERT_BITS-1:0] gather_expert,
    input  logic [TOKEN_BITS-1:0] gather_place,
    input  logic write_back_enable,  // of the linear engine, where its rows are scattered
    input  logic [EXPERT_BITS-1:0] write_back_expert,
    input  logic [TOKEN_BITS-1:0] write_back_place,
    output logic [TOKEN_BITS-1:0] token,
    output logic [SCORE_BITS-1:0] score,

    output logic [EXPERTS*TOKEN_BITS-1:0] lengths,
    output logic [EXPERTS-1:0] active,
    output logic [15:0] decided
);

  localparam int PLACE_BITS = TOKENS > 1 ? $clog2(TOKENS) : 1;
  localparam int INDEX_BITS = EXPERTS > 1 ? $clog2(EXPERTS) : 1;
  localparam int ADDRESS_BITS = INDEX_BITS + PLACE_BITS;
  localparam int ENTRY_BITS = PLACE_BITS + SCORE_BITS;

  // ---- Writing.

  logic writes;
  logic [ADDRESS_BITS-1:0] write_address;
  logic [ENTRY_BITS-1:0] write_entry;

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) writes <= 1'b0;
    else writes <= entry_valid || patch_valid;

  always_ff @(posedge ap_clk)
    if (entry_valid) begin
      write_address <= {INDEX_BITS'(entry_expert), PLACE_BITS'(entry_place)};
      write_entry   <= {PLACE_BITS'(entry_token), entry_score};
    end else begin
      write_address <= {INDEX_BITS'(0), PLACE_BITS'(patch_place)};
      write_entry   <= {PLACE_BITS'(patch_token), SCORE_BITS'(0)};
    end

  // ---- Reading.

  logic [ADDRESS_BITS-1:0] read_address;
  logic [ENTRY_BITS-1:0] read_entry;

  assign read_address = gather_enable ? {INDEX_BITS'(gather_expert), PLACE_BITS'(gather_place)}
      : {INDEX_BITS'(write_back_expert), PLACE_BITS'(write_back_place)};
  assign token = TOKEN_BITS'(read_entry[ENTRY_BITS-1:SCORE_BITS]);
  assign score = read_entry[SCORE_BITS-1:0];

  edgemoe_memory #(.WIDTH(ENTRY_BITS), .DEPTH(2 ** ADDRESS_BITS), .LATENCY(LATENCY), .STYLE(STYLE)) memory (
      .ap_clk(ap_clk),
      .write_enable(writes),
      .write_address(write_address),
      .write_data(write_entry),
      .ce(1'b1),
      .read_address(read_address),
      .read_data(read_entry)
  );

  // ---- Lengths, and what they say once the router has decided.

  logic [EXPERTS-1:0] has_any;
  logic decides;

  for (genvar expert = 0; expert < EXPERTS; expert++) begin : g_length
    logic enters;
    assign enters = entry_valid && entry_expert == EXPERT_BITS'(expert);
    always_ff @(posedge ap_clk)
      if (!ap_rst_n || clear || restart) begin
        lengths[expert*TOKEN_BITS+:TOKEN_BITS] <= '0;
        has_any[expert] <= 1'b0;
      end else if (enters) begin
        lengths[expert*TOKEN_BITS+:TOKEN_BITS] <= entry_place + 1'b1;
        has_any[expert] <= 1'b1;
      end
  end

  always_ff @(posedge ap_clk)
    if (!ap_rst_n || restart) begin
      decides <= 1'b0;
      decided <= '0;
      active  <= '0;
    end else begin
      decides <= router_done;
      if (decides) begin
        decided <= decided + 1'b1;
        active  <= has_any;
      end
    end

`ifdef SYNTHESIS
  wire unused = &{1'b0, write_back_enable};
`else
  always_ff @(posedge ap_clk)
    if (ap_rst_n) begin
      assert (!(entry_valid && patch_valid) && !(gather_enable && write_back_enable));
      if (entry_valid) assert (32'(entry_expert) < EXPERTS && 32'(entry_place) < TOKENS && 32'(entry_token) < TOKENS);
      if (entry_valid) assert (entry_place == lengths[32'(entry_expert)*TOKEN_BITS+:TOKEN_BITS]);
      if (patch_valid) assert (32'(patch_place) < TOKENS && 32'(patch_token) < TOKENS);
      if (gather_enable) assert (32'(gather_expert) < EXPERTS && 32'(gather_place) < TOKENS);
      if (write_back_enable) assert (32'(write_back_expert) < EXPERTS && 32'(write_back_place) < TOKENS);
      assert (!(clear && (entry_valid || decides)));
    end
`endif

endmodule
