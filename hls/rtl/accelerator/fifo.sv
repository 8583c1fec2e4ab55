// A queue of DEPTH words (a power of two) in LUTs: a word that is put in can be taken out in the next cycle.
module edgemoe_fifo #(
    parameter int WIDTH = 8,
    parameter int DEPTH = 4,
    localparam int COUNT_BITS = $clog2(DEPTH) + 1
) (
    input  logic ap_clk,
    input  logic ap_rst_n,
    input  logic [WIDTH-1:0] in_data,
    input  logic in_valid,
    output logic in_ready,
    output logic [WIDTH-1:0] out_data,
    output logic out_valid,
    input  logic out_ready,
    output logic [COUNT_BITS-1:0] count  // words in it
);

  // One bit more than an address tells full from empty.
  logic [COUNT_BITS-1:0] written;
  logic [COUNT_BITS-1:0] read;
  (* ram_style = "distributed" *) logic [WIDTH-1:0] words[DEPTH];

  assign count = written - read;
  assign in_ready = !count[COUNT_BITS-1];
  assign out_valid = count != '0;
  assign out_data = words[read[COUNT_BITS-2:0]];

  always_ff @(posedge ap_clk)
    if (!ap_rst_n) begin
      written <= '0;
      read <= '0;
    end else begin
      if (in_valid && in_ready) written <= written + 1'b1;
      if (out_valid && out_ready) read <= read + 1'b1;
    end

  always_ff @(posedge ap_clk) if (in_valid && in_ready) words[written[COUNT_BITS-2:0]] <= in_data;

`ifndef SYNTHESIS
  initial assert (DEPTH >= 2 && DEPTH == 2 ** $clog2(DEPTH));
  logic past_valid;
  initial past_valid = 1'b0;
  always_ff @(posedge ap_clk) begin
    past_valid <= ap_rst_n;
    if (ap_rst_n && past_valid) begin
      assert (32'(count) <= DEPTH);
      if ($past(out_valid && !out_ready)) assert (out_valid && $stable(out_data));
    end
  end
`endif
`ifdef FORMAL
  // A word that goes in somewhere comes out there: any place, any word.
  (* anyconst *) logic [COUNT_BITS-1:0] place;
  logic [WIDTH-1:0] kept;
  logic here;
  assign here = place - read < count;  // whether the word of that place is inside

  initial assume (!ap_rst_n);
  always_ff @(posedge ap_clk) begin
    if (in_valid && in_ready && written == place) kept <= in_data;
    if (ap_rst_n && past_valid && here) begin
      assert (words[place[COUNT_BITS-2:0]] == kept);
      if (read == place) assert (out_data == kept);
    end
  end
`endif

endmodule
