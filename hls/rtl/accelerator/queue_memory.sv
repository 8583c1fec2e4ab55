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
endmodule
