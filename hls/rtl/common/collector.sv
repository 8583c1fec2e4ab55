// Joins BEATS beats into one word, the first in its lowest bits. The last beat passes straight through.
module edgemoe_collector #(
    parameter int WIDTH = 64,
    parameter int BEATS = 1
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic [WIDTH-1:0] beat,
    input  logic valid,  // a beat is taken
    input  logic restart,  // the next beat is the first of a word
    output logic [BEATS*WIDTH-1:0] word,
    output logic complete  // the word ends with this beat
);

  if (BEATS == 1) begin : g_single
    wire unused = &{1'b0, ap_clk, ap_rst_n, restart};
    assign word = beat;
    assign complete = valid;
  end else begin : g_several
    // The beat that comes next, as a bit for each: so every beat has an enable of its own, of no more registers than it has bits.
    logic [BEATS-1:0] next;
    logic [(BEATS-1)*WIDTH-1:0] earlier;

    assign word = {beat, earlier};
    assign complete = valid && next[BEATS-1];

    always_ff @(posedge ap_clk)
      if (!ap_rst_n || restart) next <= BEATS'(1);
      else if (valid) next <= {next[BEATS-2:0], next[BEATS-1]};

    for (genvar i = 0; i < BEATS - 1; i++) begin : g_beat
      always_ff @(posedge ap_clk) if (valid && next[i]) earlier[i*WIDTH+:WIDTH] <= beat;
    end
  end

endmodule
